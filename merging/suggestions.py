"""A suggestion for labels without names: which of a model's outputs they are, from its predictions."""

from merging.alignment import Suggestion, suggest_alignment
from merging.checkpoints import Checkpoint
from merging.errors import CheckpointError
from merging.evaluation import on_device, predict
from merging.families import answers_in_words
from merging.tasks import Task

# Rows that decide well between a few labels and take seconds.
SUGGESTION_ROWS = 200


def suggest_for(
    task: Task, checkpoint: Checkpoint, *, examples: int = SUGGESTION_ROWS, seed: int = 0, device: str = "cpu"
) -> Suggestion:
    """The order of the checkpoint's outputs under which it is right most often on rows of the task's `fisher` split.

    Never on `validation` or `test`: those are for choosing settings, and for scores.

    Raises: TaskError or CheckpointError if task or checkpoint cannot be read.
    """
    if answers_in_words(checkpoint):
        raise CheckpointError(
            f'"{checkpoint.reference}" needs no suggestion: expected outputs without names, got a model whose outputs are '
            "the task's own label names. Leave the order of labels empty."
        )
    batches = task.batches("fisher", checkpoint, examples=examples, seed=seed)
    model = checkpoint.model(device)
    prediction = predict([model], on_device([batches], device))[0]
    # Back from the model's outputs, as they are aligned now, to the dataset's own labels.
    order = list(task.align("fisher", checkpoint).order)
    labels = [order.index(int(output)) for output in prediction.labels]
    outputs = prediction.probabilities.shape[1]
    return suggest_alignment(prediction.probabilities.argmax(1), labels, outputs=outputs, count=len(order))
