"""What the page's fields for rules hold: their first values, and the weights of layers as text."""

from merging.errors import RecipeError

RULE, BESIDE = "fisher", ("isotropic",)
LONGEST = 4000  # characters of the layers' weights
SCALE_LIMIT = 3.0  # of the slider; a recipe may ask for more
# What the page has a field for, beside the scale.
NUMBERS = {
    "damping": "added to K-FAC's factors, as a share of their mean eigenvalue",
    "shrinkage": "of the off-diagonals of K-FAC's input factor; 1 keeps them",
    "density": "the share of a task vector that TIES and DARE keep",
    "prior": "H₀ of UGM, in mean Fishers",
}


def layer_weights_of(text: object) -> dict[str, tuple[float, ...]]:
    """`layer: weights` from the field's lines. Raises: RecipeError."""
    found: dict[str, tuple[float, ...]] = {}
    if len(str(text or "")) > LONGEST:
        raise RecipeError(
            f"The layers' weights do not fit: expected at most {LONGEST} characters, got {len(str(text))}. Name fewer layers, or "
            "merge from the recipe's file."
        )
    for line in str(text or "").splitlines():
        if not line.strip():
            continue
        layer, colon, weights = line.partition(":")
        try:
            numbers = tuple(float(part) for part in weights.split(","))
        except ValueError:
            numbers = ()
        if layer.strip() in found:
            raise RecipeError(
                f"The layers' weights cannot be read: expected each layer once, got “{layer.strip():.60}” twice."
            )
        if not colon or not layer.strip() or not numbers:
            raise RecipeError(
                f"The layers' weights cannot be read: expected a layer, a colon and one weight for each model, such as "
                f"“layer 0: 0.8, 0.2”, got “{line.strip():.60}”. Mend the line, or empty the field."
            )
        found[layer.strip()] = numbers
    return found


def layer_weights_text(weights: object) -> str:
    """The field's lines from a recipe's."""
    return "\n".join(f"{layer}: {', '.join(map(_shortest, own))}" for layer, own in dict(weights).items())


def _shortest(value: float) -> str:
    """The shortest text that reads back as the same number."""
    return repr(float(value)).removesuffix(".0")
