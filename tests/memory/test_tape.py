"""The tape keeps books as torch does: what is alive, when, and what the peak is made of."""

from collections import Counter

from ftwiz.engine.memory.tape import Tape, Tensor
from ftwiz.engine.memory.tape_sizes import Part, Size, written

HIDDEN, WIDTH = 8, 32


def _mlp(tape: Tape, x: Tensor) -> Tensor:
    y = tape.op([x], "up", WIDTH, 2, keeps=[x], trains=[Part("up", "", HIDDEN * WIDTH, 2, "fixed")])
    y = tape.op([y], "gelu", WIDTH, 2, keeps=[y])
    return tape.op([y], "down", HIDDEN, 2, keeps=[y], trains=[Part("down", "", HIDDEN * WIDTH, 2, "fixed")])


def _names(alive: Counter[Part]) -> dict[str, int]:
    names: Counter[str] = Counter()
    for part, number in alive.items():
        names[part.name] += number
    return names


def test_a_tensor_dies_with_the_last_name_that_holds_it() -> None:
    tape = Tape()
    x = tape.tensor("x", HIDDEN, 2)
    y = tape.op([x], "y", HIDDEN, 2, keeps=[x])
    del x
    assert _names(tape.alive()) == {"y": 1}, "nothing needs a gradient, so nothing is kept"
    del y
    assert not tape.alive()


def test_what_an_operation_keeps_lives_until_its_backward() -> None:
    tape = Tape()
    x = tape.tensor("x", HIDDEN, 2, needs_grad=True)
    y = _mlp(tape, x)
    del x
    assert _names(tape.alive()) == {"x": 1, "up": 1, "gelu": 1, "down": 1}
    tape.backward(y)
    assert {part.section for part in tape.alive()} == {"", "gradient", "weight gradient"}
    assert _names(tape.alive()) == {"x": 1, "down": 2, "up": 1}


def test_a_tensor_that_two_operations_keep_costs_once() -> None:
    tape = Tape()
    x = tape.tensor("x", HIDDEN, 2, needs_grad=True)
    ys = [tape.op([x], name, HIDDEN, 2, keeps=[x]) for name in "qkv"]
    assert tape.alive()[Part("x", "", HIDDEN, 2, "token")] == 1
    del ys


def test_a_sum_passes_the_gradient_on_and_does_not_copy_it() -> None:
    tape = Tape()
    a = tape.tensor("a", HIDDEN, 2, needs_grad=True)
    b = tape.tensor("b", HIDDEN, 2, needs_grad=True)
    total = tape.op([a, b], "sum", HIDDEN, 2, passes=True)
    tape.phase = "backward"
    tape.backward(total)
    assert tape.walked().peak(1, 1, "backward").num_bytes == 4 * HIDDEN * 2, "a, b, sum, one gradient"


def test_a_checkpoint_keeps_its_input_alone_and_the_backward_pass_makes_the_rest_again() -> None:
    tape = Tape(lands_gradients=False)
    x = tape.tensor("x", HIDDEN, 2, needs_grad=True)
    y = tape.checkpoint(lambda x: _mlp(tape, x), x)
    del x
    assert _names(tape.alive()) == {"x": 1, "down": 1}
    tape.phase = "backward"
    tape.backward(y)
    peak = tape.walked().peak(1, 1, "backward")
    assert _names(peak.alive)["gelu"] >= 1
    assert _names(tape.alive()) == {"x": 1, "down": 1}, "the gradient of x, and y, which has a name"


def test_a_checkpoint_stops_recomputing_at_the_last_tensor_that_is_needed() -> None:
    tape = Tape(lands_gradients=False)
    x = tape.tensor("x", HIDDEN, 2, needs_grad=True)

    def run(x: Tensor) -> Tensor:
        y = tape.op([x], "kept", WIDTH, 2, keeps=[x])
        y = tape.op([y], "small", HIDDEN, 2, keeps=[y])
        return tape.op([y], "huge", 1000 * WIDTH, 2)

    y = tape.checkpoint(run, x)
    tape.phase = "backward"
    tape.backward(y)
    made = tape.walked().peak(1, 1, "backward").alive
    assert made[Part("huge", "", 1000 * WIDTH, 2, "token")] == 1, "the output alone, not a second one"


def test_one_walk_answers_for_every_batch() -> None:
    tape = Tape()
    tape.phase = "forward"
    few = tape.tensor("copy of weights", 1_000_000, 2, per="fixed")
    del few
    many = tape.tensor("scores", 4, 2, per="pair")
    walked = tape.walked()
    assert walked.peak(10, 10, "forward").num_bytes == 2_000_000
    assert walked.peak(1000, 1000, "forward").num_bytes == 8_000_000
    assert many.needs_grad is False


def test_scratch_is_held_only_while_an_operation_runs() -> None:
    tape = Tape()
    tape.phase = "forward"
    x = tape.tensor("x", HIDDEN, 2)
    y = tape.op([x], "y", HIDDEN, 2, forward_scratch=[Part("workspace", "", 100, 1, "fixed")])
    assert tape.walked().peak(1, 1, "forward").num_bytes == 100 + 4 * HIDDEN
    assert _names(tape.alive()) == {"x": 1, "y": 1}
    del y


def test_a_formula_adds_up_the_bytes_of_one_width() -> None:
    parts = Counter({Part("a", "", 4096, 2, "token"): 2, Part("b", "", 4096, 4, "token"): 1})
    parts[Part("scores", "", 32, 2, "pair")] = 1
    assert written(parts) == "tokens x (8 x 4,096) B + tokens x sequence x (2 x 32) B"
    assert Size(4 * 4096 * 2, 64, 0).at(3, 5) == 3 * (32768 + 5 * 64)
