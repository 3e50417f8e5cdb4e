"""Networks of other packages, at sizes that build quickly; imported by workers, not a test itself.

A name begins with its package; `test_package_models.py` says under which Keras each is measured.
"""

from __future__ import annotations

import importlib
from typing import Any


def _of(path: str, *args: Any, **more: Any) -> Any:
    module, _, name = path.rpartition(".")
    return getattr(importlib.import_module(module), name)(*args, **more)


# keras-hub: a backbone each of its kinds, and tasks, which bring their own compile()


def _hub(name: str, **more: Any) -> Any:
    return _of(f"keras_hub.models.{name}", **more)


def _resnet() -> Any:
    return _hub(
        "ResNetBackbone",
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 96],
        stackwise_num_blocks=[1, 1],
        stackwise_num_strides=[1, 2],
        block_type="basic_block",
        image_shape=(None, None, 3),
    )


def _mit() -> Any:
    return _hub(
        "MiTBackbone",
        layerwise_depths=[1, 1],
        num_layers=2,
        layerwise_num_heads=[1, 2],
        layerwise_sr_ratios=[8, 4],
        max_drop_path_rate=0.1,
        layerwise_patch_sizes=[7, 3],
        layerwise_strides=[4, 2],
        image_shape=(64, 64, 3),
        hidden_dims=[8, 16],
    )


def hub_resnet() -> Any:
    return _resnet()


def hub_resnet_classifier() -> Any:
    return _hub("ImageClassifier", backbone=_resnet(), num_classes=5)


def hub_mit() -> Any:
    return _mit()


def hub_segformer() -> Any:
    backbone = _of(
        "keras_hub.models.SegFormerBackbone", image_encoder=_mit(), projection_filters=16
    )
    return _hub("SegFormerImageSegmenter", backbone=backbone, num_classes=4)


def hub_efficientnet() -> Any:
    return _hub(
        "EfficientNetBackbone",
        stackwise_width_coefficients=[1.0, 1.0],
        stackwise_depth_coefficients=[1.0, 1.0],
        stackwise_kernel_sizes=[3, 3],
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 6],
        stackwise_squeeze_and_excite_ratios=[0.25, 0.25],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1", "v1"],
        image_shape=(64, 64, 3),
    )


def hub_vgg() -> Any:
    return _hub(
        "VGGBackbone",
        stackwise_num_repeats=[1, 1],
        stackwise_num_filters=[4, 8],
        image_shape=(32, 32, 3),
    )


def hub_densenet() -> Any:
    return _hub(
        "DenseNetBackbone",
        stackwise_num_repeats=[1, 1],
        compression_ratio=0.5,
        growth_rate=8,
        image_shape=(64, 64, 3),
    )


def hub_vit() -> Any:
    return _hub(
        "ViTBackbone",
        image_shape=(32, 32, 3),
        patch_size=8,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        mlp_dim=32,
    )


def hub_swin() -> Any:
    return _hub(
        "SwinTransformerBackbone",
        image_shape=(64, 64, 3),
        patch_size=4,
        embed_dim=8,
        depths=[2, 2],
        num_heads=[1, 2],
        window_size=4,
    )


def _bert() -> Any:
    return _hub(
        "BertBackbone",
        vocabulary_size=100,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=128,
    )


def hub_bert_classifier() -> Any:
    return _hub("BertTextClassifier", backbone=_bert(), num_classes=3)


def hub_bert_masked_lm() -> Any:
    return _hub("BertMaskedLM", backbone=_bert())


def hub_gpt2_lm() -> Any:
    backbone = _hub(
        "GPT2Backbone",
        vocabulary_size=100,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=128,
    )
    return _hub("GPT2CausalLM", backbone=backbone)


def hub_llama() -> Any:
    return _hub(
        "LlamaBackbone",
        vocabulary_size=100,
        num_layers=1,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    )


def hub_mixtral() -> Any:
    return _hub(
        "MixtralBackbone",
        vocabulary_size=100,
        num_layers=1,
        num_query_heads=4,
        num_key_value_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        num_experts=4,
        top_k=2,
    )


def hub_t5() -> Any:
    return _hub(
        "T5Backbone",
        vocabulary_size=100,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
    )


def hub_whisper() -> Any:
    return _hub(
        "WhisperBackbone",
        vocabulary_size=100,
        num_layers=1,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=32,
        max_encoder_sequence_length=256,
        max_decoder_sequence_length=128,
    )


def hub_f_net() -> Any:
    return _hub(
        "FNetBackbone",
        vocabulary_size=100,
        num_layers=1,
        hidden_dim=16,
        intermediate_dim=32,
        max_sequence_length=128,
    )


# keras-cv-attention-models, with tf-keras


def _kecam(path: str, size: int = 64, **more: Any) -> Any:
    return _of(
        f"keras_cv_attention_models.{path}",
        input_shape=(size, size, 3),
        num_classes=10,
        pretrained=None,
        **more,
    )


def kecam_aotnet() -> Any:
    return _kecam("aotnet.AotNet50")


def kecam_beit() -> Any:
    return _kecam("beit.ViTTinyPatch16")


def kecam_coatnet() -> Any:
    return _kecam("coatnet.CoAtNet0")


def kecam_convnext() -> Any:
    return _kecam("convnext.ConvNeXtTiny")


def kecam_efficientnet() -> Any:
    return _kecam("efficientnet.EfficientNetV2B0")


def kecam_halonet() -> Any:
    return _kecam("halonet.HaloNetH0")


def kecam_levit() -> Any:
    return _kecam("levit.LeViT128S")


def kecam_maxvit() -> Any:
    return _kecam("maxvit.MaxViT", size=112, num_blocks=[1, 1], out_channels=[32, 64])


def kecam_mixer() -> Any:
    return _kecam("mlp_family.MLPMixerS32")


def kecam_swin() -> Any:
    return _kecam("swin_transformer_v2.SwinTransformerV2Tiny_window8")


def kecam_volo() -> Any:
    return _kecam("volo.VOLO_d1", size=224)


def kecam_yolov8() -> Any:
    return _kecam("yolov8.YOLOV8_N")


# segmentation-models, with tf-keras


def _sm(name: str, backbone: str = "resnet18", **more: Any) -> Any:
    return _of(f"segmentation_models.{name}", backbone, encoder_weights=None, **more)


def sm_unet() -> Any:
    """Open height and width; compiled as its README does."""
    import segmentation_models

    model = _sm("Unet")
    model.compile(
        "Adam",
        loss=segmentation_models.losses.bce_jaccard_loss,
        metrics=[segmentation_models.metrics.iou_score],
    )
    return model


def sm_fpn() -> Any:
    return _sm("FPN", "mobilenetv2", input_shape=(64, 64, 3), classes=3, activation="softmax")


def sm_linknet() -> Any:
    return _sm("Linknet", "efficientnetb0", input_shape=(64, 64, 3))


def sm_pspnet() -> Any:
    return _sm("PSPNet", input_shape=(96, 96, 3), classes=3, activation="softmax")


# keras-unet-collection


def _unets(name: str, *args: Any, **more: Any) -> Any:
    return _of(f"keras_unet_collection.models.{name}", (64, 64, 3), *args, **more)


def unets_unet() -> Any:
    return _unets("unet_2d", [8, 16, 32], n_labels=2)


def unets_vnet() -> Any:
    return _unets("vnet_2d", [16, 32, 64, 128, 256], n_labels=2)


def unets_plus() -> Any:
    return _unets("unet_plus_2d", [8, 16, 32], n_labels=2, deep_supervision=True)


def unets_r2() -> Any:
    return _unets("r2_unet_2d", [8, 16, 32], n_labels=2)


def unets_attention() -> Any:
    return _unets("att_unet_2d", [8, 16, 32], n_labels=2)


def unets_u2net() -> Any:
    return _unets("u2net_2d", 2, [8, 16, 32, 64])


def unets_transunet() -> Any:
    return _unets(
        "transunet_2d",
        [8, 16, 32],
        n_labels=2,
        embed_dim=16,
        num_mlp=32,
        num_heads=2,
        num_transformer=1,
    )


def unets_swin() -> Any:
    return _unets(
        "swin_unet_2d",
        filter_num_begin=8,
        n_labels=2,
        depth=3,
        stack_num_down=2,
        stack_num_up=2,
        patch_size=(4, 4),
        num_heads=[2, 2, 2],
        window_size=[4, 2, 2],
        num_mlp=16,
    )


# vit-keras, classification-models-3D


def _vit(name: str, size: int, **more: Any) -> Any:
    trained = {"pretrained": False, "pretrained_top": False}
    return _of(f"vit_keras.vit.{name}", image_size=size, **trained, **more)


def vit_b32() -> Any:
    return _vit("vit_b32", 64, classes=5)


def vit_b16_features() -> Any:
    return _vit("vit_b16", 32, include_top=False)


def _volumes(name: str, keras: str, **more: Any) -> Any:
    factory = importlib.import_module(f"classification_models_3D.{keras}").Classifiers
    build, _ = factory.get(name)
    return build(input_shape=(32, 32, 32, 2), weights=None, classes=4, **more)


def volumes_resnet18() -> Any:
    return _volumes("resnet18", "kkeras")


def volumes_mobilenet() -> Any:
    """Narrow: its depthwise layers are one convolution for each channel."""
    return _volumes("mobilenet", "kkeras", alpha=0.25)


def volumes_seresnet18() -> Any:
    return _volumes("seresnet18", "tfkeras")


# tf-keras itself


def old_mobilenet() -> Any:
    return _of("tf_keras.applications.MobileNetV3Small", weights=None, input_shape=(96, 96, 3))


def old_functional() -> Any:
    """A compiled model of two outputs and a loss added to it, as Keras 2 has it."""
    import tf_keras as keras

    inputs = keras.Input((8, 8, 3), name="image")
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    x = keras.layers.Flatten()(x)
    outputs = [keras.layers.Dense(3, name="kind")(x), keras.layers.Dense(2, name="place")(x)]
    model = keras.Model(inputs, outputs)
    model.add_loss(0.01 * keras.backend.mean(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", {"kind": loss, "place": "mse"})
    return model


def old_train_step() -> Any:
    """Keras 2's own guide to train_step: `compiled_loss` and `compiled_metrics`."""
    import tensorflow as tf
    import tf_keras as keras

    class Own(keras.Model):  # type: ignore[misc]  # Keras has no types
        def train_step(self, data: Any) -> Any:
            x, y = data
            with tf.GradientTape() as tape:
                scores = self(x, training=True)
                loss = self.compiled_loss(y, scores, regularization_losses=self.losses)
            weights = self.trainable_variables
            slopes = tape.gradient(loss, weights)
            self.optimizer.apply_gradients(zip(slopes, weights, strict=True))
            self.compiled_metrics.update_state(y, scores)
            return {one.name: one.result() for one in self.metrics}

    inputs = keras.Input((12,))
    model = Own(inputs, keras.layers.Dense(1)(keras.layers.Dense(16)(inputs)))
    model.compile("adam", "mse", metrics=["mae"])
    return model


def old_recurrent() -> Any:
    import tf_keras as keras

    layers = [keras.layers.Embedding(50, 8, mask_zero=True), keras.layers.LSTM(6)]
    tokens = keras.Input((None,), dtype="int32")
    return keras.Sequential([tokens, *layers, keras.layers.Dense(2)])
