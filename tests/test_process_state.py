"""State read back: what the model's own code makes of the process is in the row, or refused."""

from __future__ import annotations

import functools
import os
import signal
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from workers import BUILDERS, environ, measured, skip_without

from convmark.core.case import Case
from convmark.interpreter import Answer, Interpreter
from convmark.worker.failure import CaseFailure
from convmark.worker.module_tables import process_wide
from convmark.worker.precisions import as_multiplied, checked_precision
from convmark.worker.process_state import Witness, process_settings

Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def ask(interpreter_of: Callable[[str], Interpreter]) -> Ask:
    """Builds a model of settingnets and takes ten steps, in a fresh process."""

    @functools.cache
    def ask(
        name: str, *, asked: tuple[str, ...] = (), backend: str = "tensorflow", **case: Any
    ) -> Answer:
        is_whole = ":" in name or name in ("lenet5", "mini_resnet")
        model = name if is_whole else f"settingnets:{name}"
        case.setdefault("threads", "default")
        request = measured(model, batch_size=4, backend=backend, **case)
        request = {**request, "smoke": True, "asked": list(asked)}
        return interpreter_of(backend).answer(request)

    return ask


def read_back(answer: Answer) -> dict[str, Any]:
    assert (answer.status, answer.message) == ("ok", "")
    return answer.event("read_back") or {}


def test_a_model_that_puts_its_weights_elsewhere_is_refused(ask: Ask) -> None:
    answer = ask("elsewhere", backend="torch")
    assert answer.status == "error"
    assert "elsewhere: the weights must be on the case's device cpu, but they are on the META" in (
        answer.message
    )


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_a_model_that_sets_nothing_leaves_the_default_state(ask: Ask, backend: str) -> None:
    found = read_back(ask("lenet5", backend=backend))
    assert (found["inherited"], found["model"], found["environ"]) == ({}, {}, {})
    assert (found["precision"], found["threads"]) == ("float32", "default")
    assert found["call_path"] in ("tf.function", "jax.jit", "eager")


@pytest.mark.parametrize(
    ("name", "precision"),
    [
        ("global_policy", "mixed_bfloat16"),
        ("own_dtype", "float64"),
        ("floatx", "float64"),
        ("nested", "float32+mixed_bfloat16"),
        ("wrapped", "float32+mixed_bfloat16"),
        ("subclassed", "bfloat16+float32"),
        ("without_weights", "float16"),
        ("complex_weights", "float32+float32_from_complex64"),
    ],
)
def test_precision_is_what_the_layers_compute_in(ask: Ask, name: str, precision: str) -> None:
    assert read_back(ask(name))["precision"] == precision


def test_what_a_layer_casts_and_compiles_by_itself_is_in_the_row(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    asked = measured("settingnets:casting", batch_size=4)
    found = read_back(interpreter_of("tensorflow").answer(asked))
    assert found["precision"] == "float32+mixed_bfloat16"
    assert found["call_path"] == "tf.function, XLA inside"
    refused = interpreter_of("tensorflow").answer({**asked, "asked": ["precision"]})
    assert "its operations multiply in bfloat16, float32; leave out --precisions" in refused.message


def test_what_a_training_step_or_pytorch_compiles_by_itself_is_in_the_row(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    asked = measured("settingnets:compiled_loss", task="train", batch_size=4)
    found = read_back(interpreter_of("tensorflow").answer(asked))
    assert found["call_path"] == "tf.function(train_step), XLA inside"
    asked = measured("settingnets:torch_inside", batch_size=4, backend="torch", threads="default")
    found = read_back(interpreter_of("torch").answer(asked))
    assert found["call_path"] == "eager, torch.compile inside"
    assert found["model"]["changing_threads"]
    asked = measured("settingnets:torch_scripted", batch_size=4, backend="torch")
    found = read_back(interpreter_of("torch").answer(asked))
    assert found["call_path"] == "eager, torch.jit inside"
    assert found["model"]["changing_settings"] == "mkldnn_enabled:False"
    asked = measured("settingnets:torch_scripted_aside", batch_size=4, backend="torch")
    found = read_back(interpreter_of("torch").answer(asked))
    assert found["call_path"] == "eager"  # TorchScript that the step does not call


def test_what_pytorch_computes_once_more_is_counted_and_in_the_state_without_an_address(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    asked = measured("settingnets:torch_recomputed", task="train", batch_size=4, backend="torch")
    answer = interpreter_of("torch").answer(asked)
    hooks = read_back(answer)["model"]["changing_settings"]
    assert hooks.startswith("saved_tensors_hooks:")
    assert "pack_hook" in hooks
    assert "0x" not in hooks
    work = answer.event("work") or {}
    passes = 2 * (2 * 8 * 6 + (3 + 1) * 6 * 4)
    assert work["flops_note"] is None
    assert work["training_flops_per_sample"] > passes  # Muon multiplies matrices too


@pytest.mark.parametrize("task", ["infer", "train"])
def test_sparse_rows_of_jax_are_measured_and_not_cut_for_steps_that_are_fed(
    interpreter_of: Callable[[str], Interpreter], task: str
) -> None:
    asked = measured("settingnets:jax_sparse", task=task, batch_size=4, backend="jax")
    answer = interpreter_of("jax").answer(asked)
    assert (answer.status, answer.message) == ("ok", "")
    assert answer.event("input_bound") is None


def test_threads_that_were_asked_for_are_held_to_within_a_step_too(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    asked = measured("settingnets:torch_inside", batch_size=4, backend="torch")
    answer = interpreter_of("torch").answer({**asked, "asked": ["threads"]})
    assert "asked for threads 1" in answer.message
    assert "2 in a part of the steps" in answer.message


def test_no_measured_process_reads_what_another_has_compiled(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    asked = measured("settingnets:compiled_where", backend="torch")
    messages = [interpreter_of("torch").answer(asked).message for _ in range(2)]
    assert all("inductor-" in message for message in messages)
    assert messages[0] != messages[1]
    asked = measured("settingnets:jax_kept", backend="jax")
    assert "kept: False" in interpreter_of("jax").answer(asked).message


def test_what_the_harness_works_figures_out_with_is_not_replaced(ask: Ask) -> None:
    assert read_back(ask("prints"))["model"] == {"replaced": "builtins.print"}
    assert "rounds: the model's code must not replace functions of Python" in ask("rounds").message


@pytest.mark.parametrize(
    ("name", "by"), [("mirrored", "MirroredStrategy"), ("jax_parallel", "its sharding")]
)
def test_a_model_spread_over_replicas_of_its_own_is_refused(ask: Ask, name: str, by: str) -> None:
    answer = ask(f"spreadnets:{name}", backend=backend_of(name))
    assert f"spread it over 2 by {by}; remove that, and give --replicas 2" in answer.message


def test_a_strategy_of_one_replica_is_in_the_state(ask: Ask) -> None:
    assert read_back(ask("of_a_strategy"))["model"] == {"strategy": "MirroredStrategy"}


ONE_BY_ONE = (
    *("settingnets:torch_inside_elsewhere", "settingnets:zero_head"),
    *("worknets:with_variable", "worknets:with_variable", "worknets:narrowed_head"),
)


@pytest.fixture(scope="module")
def in_one_process(tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    """What one process of PyTorch answers to these, one after another."""
    skip_without("torch")
    how: dict[str, Any] = {"backend": "torch", "isolation": "none"}
    variables = environ(tmp_path_factory.mktemp("none"))
    with Interpreter(environ=variables, folder=BUILDERS, **how) as interpreter:
        return [
            interpreter.answer(
                {
                    **measured(name, backend="torch", threads="default"),
                    "smoke": name.startswith("worknets"),
                }
            )
            for name in ONE_BY_ONE
        ]


def test_what_pytorch_has_compiled_of_an_earlier_case_is_not_inside_the_next_nor_its_folder(
    in_one_process: list[Answer],
) -> None:
    answers = in_one_process[:2]
    found = [read_back(one)["call_path"] for one in answers]
    assert found == ["eager, torch.compile inside", "eager"]
    folders = {(one.event("code") or {})["folder"] for one in answers}
    assert folders == {str(BUILDERS)}


def test_variables_that_a_module_sets_are_in_the_rows_of_later_cases_of_the_process_too(
    in_one_process: list[Answer],
) -> None:
    found = [read_back(one)["environ"] for one in in_one_process]
    assert found == [{}, {}, *[{"ONEDNN_VERBOSE": "0"}] * 3]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("torch_keeps_all", "every step must compute its results again, but a step on nearly"),
        ("torch_keeps_by_the_mean", "every step must compute its results again, but a step on new"),
        ("torch_keeps_the_newest", "every step must compute its results again, but a step on"),
        (
            "torch_keeps_of_whole_numbers",
            "every step must compute its results again, but a step on",
        ),
        ("torch_keeps_of_any", "the output must depend on the input, but other samples and o"),
        ("torch_keeps_and_adds", "the output must depend on the input, but other samples and "),
    ],
)
def test_a_model_that_keeps_what_it_has_computed_has_no_step_time(
    interpreter_of: Callable[[str], Interpreter], name: str, reason: str
) -> None:
    asked = measured(f"settingnets:{name}", batch_size=4, backend="torch")
    answer = interpreter_of("torch").answer(asked)
    assert answer.status == "error"
    assert reason in answer.message


def test_a_model_that_takes_its_values_as_a_set_has_a_step_time(
    interpreter_of: Callable[[str], Interpreter],
) -> None:
    answer = interpreter_of("tensorflow").answer(measured("settingnets:highest", batch_size=1))
    assert answer.status == "ok", answer.message


@pytest.mark.parametrize("name", ["torch_decides", "zero_head", "torch_columns"])
def test_a_model_whose_samples_decide_its_work_or_its_output_is_no_such_model(
    interpreter_of: Callable[[str], Interpreter], name: str
) -> None:
    asked = measured(f"settingnets:{name}", batch_size=4, backend="torch")
    answer = interpreter_of("torch").answer(asked)
    assert (answer.status, answer.message) == ("ok", "")


@pytest.mark.parametrize(
    ("kinds", "multiplied", "is_all", "found"),
    [
        ({"float32": 2}, {"float32"}, True, {"float32"}),
        ({"float32": 2}, {"bfloat16"}, True, {"mixed_bfloat16"}),
        ({"float32": 2}, {"bfloat16"}, False, {"float32", "mixed_bfloat16"}),
        ({"float32_from_bfloat16": 1}, {"bfloat16"}, True, {"bfloat16"}),
        ({"mixed_bfloat16": 2}, {"bfloat16", "float32"}, True, {"mixed_bfloat16"}),
        ({"mixed_bfloat16": 2}, {"float32"}, True, {"float32"}),
        (
            {"float32": 1, "int8_from_float32": 1},
            {"bfloat16"},
            True,
            {"float32", "int8_from_float32"},
        ),
        ({"tf32": 2}, {"float32"}, True, {"tf32"}),
        ({"float32": 2}, {"int8"}, False, {"float32", "int8_from_float32"}),
        ({"mixed_bfloat16": 2}, {"int8", "int32"}, False, {"mixed_bfloat16", "int8_from_float32"}),
    ],
)
def test_products_tell_what_policies_do_not(
    kinds: dict[str, int], multiplied: set[str], is_all: bool, found: set[str]
) -> None:
    assert set(as_multiplied(Counter(kinds), multiplied, is_all=is_all)) == found


@pytest.mark.parametrize("name", ["global_policy", "own_dtype", "nested"])
def test_a_precision_that_was_asked_for_is_kept_or_refused_with_both(ask: Ask, name: str) -> None:
    found = read_back(ask(name))["precision"]
    answer = ask(name, asked=("precision",))
    assert answer.status == "error"
    assert "precision float32 was asked for" in answer.message
    assert f"compute otherwise: {found};" in answer.message
    assert "leave out --precisions" in answer.message


@pytest.mark.parametrize("backend", ["tensorflow", "torch"])
def test_a_builder_that_clears_keras_session_leaves_the_precision(ask: Ask, backend: str) -> None:
    found = read_back(
        ask("cleared", asked=("precision",), precision="mixed_bfloat16", backend=backend)
    )
    assert (found["precision"], found["model"]) == ("mixed_bfloat16", {})


def test_a_few_float32_layers_are_good_practice_under_a_mixed_precision(ask: Ask) -> None:
    found = read_back(ask("float32_head", precision="mixed_bfloat16"))
    assert found["precision"] == "mixed_bfloat16"
    assert found["model"] == {"layers": "float32:1,mixed_bfloat16:1"}
    refused = ask("own_dtype", precision="mixed_bfloat16")
    assert "3 of 3 layers with weights compute otherwise: float64" in refused.message


@pytest.mark.parametrize("asked", [True, False])
def test_a_precision_without_a_name_is_refused(asked: bool) -> None:
    case = Case(model="net", task="infer", device="cpu", batch_size=1, precision="float32")
    for kinds in (Counter(float32=1, unheard_of=3), Counter(unheard_of=1)):
        with pytest.raises(CaseFailure, match="unheard_of"):
            checked_precision(case, kinds, asked=asked)
    assert checked_precision(case, Counter(), asked=asked) == "float32"  # no layer tells


@pytest.mark.parametrize(
    "kind",
    [
        *("gptq_4_128_from_float32", "awq_4_-1_from_float32", "complex64"),
        *("int4_128_from_float32", "int4_-1_from_float32"),
    ],
)
def test_quantized_and_complex_layers_are_another_precision(kind: str) -> None:
    case = Case(model="net", task="infer", device="cpu", batch_size=1, precision="float32")
    kinds = Counter({"float32": 1, kind: 3})
    with pytest.raises(CaseFailure, match=f"3 of 4 layers .* otherwise: .*{kind}"):
        checked_precision(case, kinds, asked=True)
    found = checked_precision(case, kinds, asked=False)
    assert set(found.split("+")) == {"float32", kind}
    assert replace(case, precision=found).precision == found


@pytest.mark.parametrize(("seconds", "found"), [(0.9, "virtual"), (600, ""), (0, "")])
def test_a_timer_that_is_set_again_with_each_signal_is_in_the_state(
    seconds: float, found: str
) -> None:
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        assert process_settings()["timers"] == found
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


AFFINITY = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0

SETTINGS = {
    "system": {
        "affinity": str(AFFINITY),
        "huge_pages": "0",
        "nice": "7",
        "scheduler": "3",
        "limit_cpu": "3600",
        "locked_memory": "True",
        "python_threads": "2",
        "child_processes": "1",
    },
    "python": {
        "gc": "False",
        "trace": "<lambda>",
        "profile": "<lambda>",
        "switch_interval_s": "1e-05",
        "timers": "profile",
        "tracemalloc": "True",
    },
    "tensorflow": {
        "max_epochs": "1",
        "epsilon": "0.001",
        "data_debug_mode": "True",
        "xla_jit": "autoclustering",
        "graph_options": "constant_folding:False",
        "op_determinism": "True",
        "tensor_float_32": "True",
        "soft_device_placement": "False",
        "op_callbacks": "1",
    },
    "eager": {"run_functions_eagerly": "True"},
    "eager_while_called": {"run_functions_eagerly": "True"},
    "tensorflow_scopes": {
        "device_scope": "/job:localhost/replica:0/task:0/device:CPU:0",
        "strategy": "OneDeviceStrategy",
        "summary_trace": "True",
        "gradient_tape": "True",
        "session_config": "experimental { enable_mlir_bridge: true mlir_bridge_rollout: "
        "MLIR_BRIDGE_ROLLOUT_ENABLED }",
        "traceback_filtering": "False",
    },
    "jax": {"jax_default_matmul_precision": "bfloat16", "jax_debug_nans": "True"},
    "jax_uncompiled": {"jax_disable_jit": "True"},
    "jax_others": {
        "jax_threefry_partitionable": "False",
        "jax_cpu_enable_async_dispatch": "False",
        "jax_enable_x64": "True",
        "jax_numpy_dtype_promotion": "strict",
    },
    "torch": {
        "mkldnn_enabled": "False",
        "mkldnn_deterministic": "True",
        "flash_sdp_enabled": "False",
        "backward_threads": "False",
        "compiler": "deterministic:True,recompile_limit:5",
        "flush_denormal": "True",
        "deterministic": "2",
        "anomaly": "True",
        "matmul_tf32": "tf32,ieee",
        "default_dtype": "torch.float64",
        "autocast": "cpu:torch.bfloat16",
        "intra_op_threads": "1",
    },
    "torch_others": {
        "float32_matmul": "high",
        "mha_fastpath": "False",
        "einsum_enabled": "False",
        "fills_memory": "False",
        "module_hooks": "1",
        "compiler_stance": "force_eager",
        "profiler": "True",
        "jit": "False",
        "flash_attention": "False",
        "autocast_scope": "bfloat16",
    },
    "torch_inference": {"inference_mode": "True"},
}


def backend_of(name: str) -> str:
    return name.partition("_")[0] if name.startswith(("jax", "torch")) else "tensorflow"


@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_models_code_sets_is_read_back(ask: Ask, name: str) -> None:
    found = read_back(ask(name, backend=backend_of(name)))["model"]
    assert {**found, **SETTINGS[name]} == found


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_weights_that_inference_changes_are_in_the_state(ask: Ask, backend: str) -> None:
    found = read_back(ask("running", backend=backend))["model"]
    assert found == {"changing_weights": "2"}


def test_what_a_compiler_has_started_is_no_setting_of_a_code() -> None:
    names = {"python_threads", "child_processes"}
    for has_compiler in (False, True):
        backend = SimpleNamespace(
            has_compiler=has_compiler, settings=dict, thread_counts=lambda: (0, 0)
        )
        assert names.isdisjoint(process_wide(backend)) == has_compiler


@pytest.mark.parametrize(
    ("event", "phase"),
    [("finished", {}), ("phase", {"phase": "sustained"}), ("phase", {"phase": "latency limit"})],
    ids=["at the end", "before Ctrl-C can end what goes on", "before the search"],
)
def test_what_a_runtime_sets_is_its_own_and_not_the_models_code(
    event: str, phase: dict[str, str]
) -> None:
    settings, told = {"pool": "1"}, dict[str, Any]()
    backend = SimpleNamespace(
        has_compiler=True,
        call_path="litert",
        compiler="",
        settings=settings.copy,
        default_settings=lambda precision: {},
        thread_counts=lambda: (0, 0),
        pool_threads=lambda: 1,
        settle=lambda model: None,
        running_weights=lambda model: {},
        layer_precisions=lambda model: ["float32"],
        weights_by_device=lambda model: {},
        runtime_settings=lambda: {"litert.xnnpack": "True"},
    )
    case = Case(model="lenet5", task="infer", runtime="litert")
    witness = Witness(case, set(), backend, lambda event, **fields: told.update(fields))
    witness.watched(lambda: "a file")()
    settings["pool"] = "2"
    witness.emit(event, **phase)
    found = told["inherited"]
    assert (found["litert.pool"], found["litert.xnnpack"]) == ("2", "True")
    assert told["model"] == {}


@pytest.mark.parametrize("name", ["eager", "eager_while_called", "jax_uncompiled"])
def test_what_is_not_compiled_has_the_call_path_eager(ask: Ask, name: str) -> None:
    assert read_back(ask(name, backend=backend_of(name)))["call_path"] == "eager"


@pytest.mark.parametrize("name", ["eager", "torch_uncompiled"])
def test_a_step_that_was_to_be_compiled_and_runs_eagerly_is_refused(
    interpreter_of: Callable[[str], Interpreter], name: str
) -> None:
    backend = backend_of(name)
    asked = measured(f"settingnets:{name}", batch_size=4, backend=backend, jit="on")
    refused = interpreter_of(backend).answer(asked).message
    assert "jit on needs a compiled step, but a setting has it run eagerly (call_path" in refused


@pytest.mark.long  # the compiler alone takes most of a minute
@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("settingnets:torch_counts", "torch.compile, eager in part"),
        ("homemade_models:left_as_it_is", "torch.compile, eager in part"),
        ("homemade_models:dropped", "torch.compile"),
    ],
)
def test_a_function_that_pytorch_does_not_compile_is_in_the_call_path(
    interpreter_of: Callable[[str], Interpreter], name: str, path: str
) -> None:
    task = "infer" if name.startswith("setting") else "train"
    asked = measured(name, task=task, batch_size=4, backend="torch", jit="on")
    assert read_back(interpreter_of("torch").answer(asked))["call_path"] == path


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_weights_that_keras_does_not_see_are_in_the_state(
    interpreter_of: Callable[[str], Interpreter], backend: str
) -> None:
    asked = measured("settingnets:untracked", batch_size=4, backend=backend)
    answer = interpreter_of(backend).answer(asked)
    assert read_back(answer)["model"] == {"untracked_parameters": "772"}
    assert (answer.event("counted") or {})["parameters"] == 4 * 3 + 3


@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_arrays_that_a_models_code_closes_over_are_in_the_state(
    interpreter_of: Callable[[str], Interpreter], backend: str
) -> None:
    asked = measured("settingnets:closed_over", batch_size=4, backend=backend)
    answer = interpreter_of(backend).answer(asked)
    assert read_back(answer)["model"] == {"untracked_parameters": "772"}


def test_what_a_models_own_predict_does_besides_is_in_the_state(ask: Ask) -> None:
    assert read_back(ask("decodes"))["model"]["predict_step"] == "not_run"
    assert "predict_step" not in read_back(ask("decodes", task="train"))["model"]
    assert read_back(ask("trained_nets:by_xla"))["model"] == {"jit_compile": "not_run"}
    assert read_back(ask("trained_nets:by_xla", jit="on"))["model"] == {}


def test_a_fit_of_its_own_and_layers_that_are_not_told_to_train_are_in_the_state(ask: Ask) -> None:
    assert read_back(ask("trained_nets:untold", task="train"))["model"] == {"training": "not_told"}
    assert read_back(ask("trained_nets:untold"))["model"] == {}
    assert read_back(ask("trained_nets:own_fit", task="train"))["model"] == {"fit": "not_run"}
    for name in ("untold(rate=0)", "told_and_compiled"):
        assert read_back(ask(f"trained_nets:{name}", task="train"))["model"] == {}


def test_a_model_that_asks_to_run_eagerly_infers_so(ask: Ask) -> None:
    found = read_back(ask("looks"))
    assert (found["call_path"], found["model"]["run_eagerly"]) == ("eager", "True")
    assert "jit on needs a compiled step, but the model was" in ask("looks", jit="on").message


@pytest.mark.parametrize(
    ("name", "precision"),
    [("jax", "float32"), ("torch", "mixed_bfloat16")],  # JAX has no float64 without x64
)
def test_the_other_frameworks_own_rules_of_precision_count(
    ask: Ask, name: str, precision: str
) -> None:
    assert read_back(ask(name, backend=name))["precision"] == precision


def test_the_system_shows_in_cores_and_variables(ask: Ask) -> None:
    found = read_back(ask("system"))
    assert found["cores"] == 1
    assert found["environ"] == {"HOME_OF_A_MODEL": "/m", "OMP_NUM_THREADS": "1"}


@pytest.mark.parametrize("name", ["threadnets:plain", "jax", "torch"])
def test_threads_are_those_in_force(ask: Ask, name: str) -> None:
    assert read_back(ask(name, backend=backend_of(name)))["threads"] == "1"


@pytest.mark.parametrize("name", ["threadnets:plain", "jax", "torch"])
def test_threads_that_were_asked_for_are_kept_or_refused_with_both(ask: Ask, name: str) -> None:
    refused = ask(name, backend=backend_of(name), threads="3")
    assert refused.status == "error"
    assert "asked for threads 3, but the model's code set the threads of operations to 1" in (
        refused.message
    )


def test_a_builder_that_sets_threads_too_late_is_refused_in_every_kind_of_run(ask: Ask) -> None:
    answer = ask("too_many_threads")  # untimed, where TensorFlow alone would let it
    assert answer.status == "error"
    assert "a builder cannot set what TensorFlow has already fixed: Intra op" in answer.message
    assert "set it when the module is imported, or threads with --threads" in answer.message


def test_variables_of_a_framework_that_a_builder_sets_are_the_rows(ask: Ask) -> None:
    found = read_back(ask("jax_others", backend="jax"))
    assert found["environ"] == {"XLA_FLAGS": "--xla_cpu_enable_fast_math=true"}


def test_threads_that_were_asked_for_and_left_are_no_change(ask: Ask) -> None:
    found = read_back(ask("plain", threads="2"))
    assert (found["threads"], found["model"]) == ("2", {})


def test_inherited_variables_and_settings_are_told_from_the_models(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(BUILDERS)
    variables = environ(tmp_path, KERAS_MAX_EPOCHS="3", KERAS_HOME=str(tmp_path))
    (tmp_path / "keras.json").write_text(
        '{"floatx": "float32", "epsilon": 1e-07, "backend": "tensorflow", '
        '"image_data_format": "channels_first"}'
    )
    with Interpreter(environ=variables) as interpreter:
        for model, parameters in (("settingnets:cube", None), ("mini_resnet", 270_218)):
            answer = interpreter.answer({**measured(model, batch_size=2), "smoke": True})
            found = read_back(answer)
            assert found["model"] == {}
            assert found["inherited"]["max_epochs"] == "3"
            built = answer.event("built") or {}
            if parameters is None:
                assert found["inherited"]["image_data_format"] == "channels_first"
            else:
                assert "image_data_format" not in found["inherited"]
                assert built["parameters"] == parameters
