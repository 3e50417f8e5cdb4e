"""Names of models: what they say, one name for one model, and nothing of the machine in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from convmark.core.errors import CaseError
from convmark.core.model_name import ModelName, split_names


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("lenet5", "lenet5"),
        ("shop.nets:Family.small", "shop.nets:Family.small"),
        ("nets:net(width=2, depth = 16)", "nets:net(depth=16,width=2)"),
        ("nets:net( 2 , [1, 2],x=(3,))", "nets:net(2,[1,2],x=(3,))"),
        ("nets:net()", "nets:net()"),
        ('nets:net(path="a/b.keras")', "nets:net(path='a/b.keras')"),
        ("./nets//small.keras", "nets/small.keras"),
        ("old.h5", "old.h5"),
        ("nets/a.tflite#encode", "nets/a.tflite#encode"),
        ("exported/#encode", "exported/#encode"),
        ("a/#net.keras", "a/#net.keras"),  # a file of that name
        ("nets:nets/small.keras", "nets:nets/small.keras"),
        ("keras_hub:resnet_18_imagenet", "keras_hub:resnet_18_imagenet"),
    ],
)
def test_a_model_has_one_name(text: str, name: str) -> None:
    assert str(ModelName.of(text)) == name
    assert str(ModelName.of(name)) == name


def test_a_file_is_named_from_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "saved_model.pb").touch()
    monkeypatch.chdir(tmp_path)
    assert str(ModelName.of("exported")) == "exported/"
    assert str(ModelName.of("exported#encode")) == "exported/#encode"
    name = ModelName.of("exported/#encode")
    assert (name.file, name.signature) == ("exported/", "encode")
    (tmp_path / "a.tflite#b").touch()
    assert ModelName.of("./a.tflite#b").file == "a.tflite#b"
    assert ModelName.of("lenet5").is_zoo
    assert str(ModelName.of(f"{tmp_path}/a/net.keras")) == "a/net.keras"
    (tmp_path / "exported" / "nets.py").touch()
    with pytest.raises(
        CaseError, match=r"give a model of your own by its module: exported\.nets:net$"
    ):
        ModelName.of("exported/nets.py:net")
    (tmp_path / "exported" / "my-nets.py").touch()
    with pytest.raises(CaseError, match=r"letters, digits and _, got 'my-nets'; rename it$"):
        ModelName.of("exported/my-nets.py:net")
    monkeypatch.chdir(tmp_path / "exported")
    (tmp_path / "nets.py").touch()
    with pytest.raises(CaseError, match=rf"its module: nets:net, and start in {tmp_path}$"):
        ModelName.of("../nets.py:net")
    with pytest.raises(CaseError, match=r"^net\.keras: a model file must be in the working"):
        ModelName.of(f"{tmp_path}/a/net.keras")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("nets:net(width=two)", "arguments must be literals"),
        ("nets:net(**{})", "arguments must be literals"),
        ("nets:net(1)(2)", "arguments must be literals"),
        ("nets:net(width=2,width=3)", "give each argument of a builder once, got width twice"),
        ("nets:net(", "package.module:attribute"),
        ("3nets:net", "package.module:attribute"),
        ("nets:", "package.module:attribute"),
    ],
)
def test_what_is_no_name_is_refused(text: str, reason: str) -> None:
    with pytest.raises(CaseError, match=reason):
        ModelName.of(text)


def test_commas_of_arguments_part_no_names() -> None:
    names = "lenet5, nets:net(2,[1,2],mode='a,)b'),b/net.keras"
    assert list(split_names(names)) == ["lenet5", "nets:net(2,[1,2],mode='a,)b')", "b/net.keras"]
