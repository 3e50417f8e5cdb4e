"""Models of other packages: measured in training, with the parameters and FLOPs that they have.

Parameters are held against `count_params()`, FLOPs against those of the operations that TensorFlow
runs eagerly (`eager_counts.py`). Minutes long, and where a package is installed: `tox -e models`.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from workers import BUILDERS, environ, measured

from convmark.interpreter import Interpreter

BATCH = 2
PACKAGES = {
    "hub": ("keras_hub", "keras"),
    "kecam": ("keras_cv_attention_models", "tf_keras"),
    "sm": ("segmentation_models", "tf_keras"),
    "unets": ("keras_unet_collection", "tf_keras"),
    "vit": ("vit_keras", "keras"),
    "volumes": ("classification_models_3D", "keras"),
    "old": ("tf_keras", "tf_keras"),
}
"""By the first word of a model's name: what must be installed, and the Keras that it is for."""
NOTES = {"hub_f_net": "FFT2D has no rule"}
OWN_TRAINING = {
    "hub_resnet_classifier": ("Adam", "sparse_categorical_crossentropy"),
    "hub_segformer": ("Adam", "categorical_crossentropy"),
    "hub_bert_classifier": ("Adam", "sparse_categorical_crossentropy"),
    "hub_bert_masked_lm": ("Adam", "sparse_categorical_crossentropy"),
    "hub_gpt2_lm": ("Adam", "sparse_categorical_crossentropy"),
    "sm_unet": ("Adam", "binary_crossentropy_plus_jaccard_loss"),
    "old_functional": (
        "Adam",
        "sparse_categorical_crossentropy + mean_squared_error + losses added",
    ),
    "old_train_step": ("Adam", "mean_squared_error + train_step"),
}
UNFOLLOWED = {"old_recurrent": "depends on the data"}
"""Whose training FLOPs are empty: Keras 2's loop over a masked sequence."""
OTHERWISE = {
    # dilated convolutions that TensorFlow runs on a padded input: as `flops.layer_records` counts
    "unets_u2net": 106_337_280,
    # eagerly Keras 2 takes a masked loop's first step twice: 128 steps and the last layer
    "old_recurrent": 128 * 2 * 24 * (8 + 6) + 2 * 6 * 2,
}
"""FLOPs of models that run more eagerly than their layers ask for."""
REFUSED = {"unets_vnet": "ValueError: Inputs have incompatible shapes."}
"""Its builder ends so without convmark, too."""
NAMES = re.findall(r"^def ([a-z]\w+)\(", (BUILDERS / "package_models.py").read_text(), re.MULTILINE)

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None, reason="a worker needs TensorFlow"
    ),
]


@pytest.fixture(scope="module")
def variables(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, str]]:
    """The environment by the Keras that a package is for."""
    folder = tmp_path_factory.mktemp("workers")
    legacy = {"TF_USE_LEGACY_KERAS": "1", "SM_FRAMEWORK": "tf.keras"}
    legacy["TF_ENABLE_ONEDNN_OPTS"] = "0"  # its softmax takes five axes, HaloNet and VOLO have six
    return {"keras": environ(folder), "tf_keras": environ(folder, **legacy)}


@pytest.fixture(scope="module")
def interpreters(variables: dict[str, dict[str, str]]) -> Iterator[dict[str, Interpreter]]:
    with (
        Interpreter(environ=variables["keras"], folder=BUILDERS) as keras,
        Interpreter(environ=variables["tf_keras"], folder=BUILDERS) as tf_keras,
    ):
        yield {"keras": keras, "tf_keras": tf_keras}


def eagerly(model: str, variables: dict[str, str]) -> dict[str, Any]:
    command = [sys.executable, str(Path(BUILDERS, "eager_counts.py")), str(BATCH), model]
    done = subprocess.run(
        command, env=variables, cwd=BUILDERS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_packages_model_is_measured(
    interpreters: dict[str, Interpreter], variables: dict[str, dict[str, str]], name: str
) -> None:
    package, keras = PACKAGES[name.partition("_")[0]]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    model = f"package_models:{name}"
    request = {**measured(model, task="train", batch_size=BATCH), "fed": False}
    answer = interpreters[keras].answer(request)
    if name in REFUSED:
        assert (answer.status, answer.message.startswith(REFUSED[name])) == ("error", True)
        return
    assert (answer.status, answer.message) == ("ok", "")
    sizes, work, first = (answer.event(one) or {} for one in ("counted", "work", "first_step"))
    counted = eagerly(model, variables[keras])
    assert sizes["parameters"] == counted["parameters"]
    if name in NOTES:
        assert (work["flops_per_sample"], work["flops_note"]) == (None, NOTES[name])
    else:
        assert work["flops_per_sample"] == pytest.approx(
            OTHERWISE.get(name, counted["flops"]), rel=1e-3
        )
        trained = work["training_flops_per_sample"]
        assert (trained is None) == (name in UNFOLLOWED)
        assert UNFOLLOWED.get(name, "None") in str(work["flops_note"])
        assert trained is None or trained > work["flops_per_sample"]
    training = (first["training"], first["optimizer"], first["loss_name"])
    if name in OWN_TRAINING:
        assert training == ("model", *OWN_TRAINING[name])
    else:
        assert training[:2] == ("harness", "SGD")
