"""The four uses of the paper as lessons of two minutes: their texts. Numbers in braces are filled in from real merges."""

from dataclasses import dataclass

ENSEMBLING, ROBUST, INTERMEDIATE, DOMAIN = "ensembling", "robust", "intermediate", "domain"
SHIFTED = ("rotated", "inverted", "noisy", "blurred")


@dataclass(frozen=True)
class Step:
    """One page of a lesson: a picture by its name in `learn_lesson_figures`, and what can be moved: `share` or `count`."""

    title: str
    text: tuple[str, ...]
    picture: str = ""
    slider: str = ""
    choices: tuple[tuple[str, str], ...] = ()  # label, value: the last step's, where no slider answers

    @property
    def asks(self) -> bool:
        """Whether it is a lesson's question."""
        return self.title == "Your turn"


@dataclass(frozen=True)
class Lesson:
    """A use: the preset of the pool `digits` that shows it, and the tasks it is about; `home` is what must not suffer."""

    key: str
    title: str
    preset: str
    target: tuple[str, ...]
    home: tuple[str, ...]
    steps: tuple[Step, ...]
    slider_label: str = ""


_ENSEMBLING = Lesson(
    key=ENSEMBLING,
    title="1 · Ensembling: five seeds, one model",
    preset="five-seeds",
    target=("digit",),
    home=(),
    steps=(
        Step(
            "Five models that differ by chance",
            (
                "Train the same network five times to read handwritten digits, and change nothing but the dice: the order "
                "of the images and their random wobbles. You get five models that are about equally good and make "
                "different mistakes.",
                "The classic way to use all five is an <b>output ensemble</b>: ask every model and average the answers. "
                "It costs five runs for every single image.",
                "Merging averages the <b>parameters</b> instead, once, and then asks one model. The <b>isotropic</b> average "
                "counts every parameter of every model the same. <b>Fisher merging</b> lets a parameter count more in the "
                "model whose answers depend on it more; that dependence is called its Fisher information.",
            ),
        ),
        Step(
            "One more model at a time",
            (
                "Move the slider from one to five models. The lines say how many of {n} images that nobody trained on are "
                "read right by the average of the first models, and by their ensemble.",
                "One image is {one_image} points: look at the bars of uncertainty before you believe in a difference.",
            ),
            picture="growing",
            slider="count",
        ),
        Step(
            "All five",
            (
                "The five models by themselves reach {single} % on average, their isotropic average {isotropic} %, their "
                "Fisher merge {fisher} %, the output ensemble {ensemble} %.",
                "{verdict}",
                "Five runs from one base on the same images end close together and care about the same parameters: a "
                "weighted average has little to change.",
            ),
            picture="all_methods",
        ),
        Step(
            "Your turn",
            (
                "You have to ship one of these. Half a point of accuracy does not matter to you; every run of a network for "
                "every image does. <b>Which one do you take?</b>",
            ),
            picture="all_methods",
            choices=(
                ("One of the five models", "single"),
                ("The isotropic average", "isotropic"),
                ("The Fisher merge", "fisher"),
                ("The output ensemble", "ensemble"),
            ),
        ),
    ),
)

_ROBUST = Lesson(
    key=ROBUST,
    title="2 · Robust fine-tuning: clean images and bad ones",
    preset="robust",
    target=SHIFTED,
    home=("digit",),
    slider_label="λ of the narrow model",
    steps=(
        Step(
            "Good at home, lost abroad",
            (
                "A model that is fine-tuned on clean images only gets very good at clean images, and forgets how to read a "
                "digit that is tilted, inverted, noisy or blurred.",
                "Here are two fine-tunings of one base: <b>narrow</b> saw clean images only, <b>robust</b> saw all sorts of "
                "distortions. We would like the best of both in one model.",
                "The number that decides how much of each goes into the merge is <b>λ</b>: 0 is the robust model, 1 the "
                "narrow one.",
            ),
        ),
        Step(
            "Two models, two virtues",
            (
                "To the right: accuracy on clean images. Upwards: the mean over the four distorted sets. Top right is where "
                "we want to be.",
                "narrow: {narrow_home} % clean, {narrow_target} % distorted. robust: {robust_home} % clean, "
                "{robust_target} % distorted. (All of this on the validation images; the test images are for the end.)",
            ),
            picture="ends",
        ),
        Step(
            "The way from one to the other",
            (
                "Move λ. Both merges travel from the robust model to the narrow one, each on its own curve; the further to "
                "the top right, the better. The cross is the output ensemble, with two runs per image.",
            ),
            picture="frontier",
            slider="share",
        ),
        Step(
            "Your turn",
            (
                "You may give up at most <b>one point on clean images</b> against the better model. <b>Move λ to where the "
                "Fisher merge reads most distorted images within that bargain</b>, then check.",
            ),
            picture="frontier",
            slider="share",
        ),
    ),
)

_INTERMEDIATE = Lesson(
    key=INTERMEDIATE,
    title="3 · Intermediate task: little data and a donor",
    preset="intermediate",
    target=("few",),
    home=(),
    slider_label="λ of the donor",
    steps=(
        Step(
            "Thirty examples",
            (
                "Your task has only 30 labelled images: what remains when the digit is divided by three? Somebody else has "
                "a model that was trained on 600 images to tell all ten digits apart. It cannot answer your question, "
                "but it knows a lot about digits.",
                "The usual way is to fine-tune the donor on your task from the start. Merging is cheaper: keep your model's "
                "<b>head</b> (the layer that answers your question) and mix the donor's <b>body</b> into yours. The paper "
                "did that with RTE, a small task of understanding sentences, and MNLI, a large one.",
                "Only your task counts here: nobody asks how well the donor still does its own.",
            ),
        ),
        Step(
            "A donor by itself is no help",
            (
                "Your model alone is right on {alone} % of the validation images. The donor's whole body under your head: "
                "{donor} %; guessing gives 33 %. The head has never seen such features.",
            ),
            picture="bodies",
        ),
        Step(
            "A little of the donor",
            (
                "Move λ, the donor's share. The curves are the two merges, on validation images.",
                "Compare them where most of the body is the donor's. In a Fisher merge, parameters that your answers "
                "depend on stay more yours; the others may move.",
            ),
            picture="shares",
            slider="share",
        ),
        Step(
            "Your turn",
            (
                "<b>Move λ to the share of the donor that you would take for the Fisher merge</b>, within a point of the "
                "best on validation. Then we look at the test images, which nobody has used so far.",
            ),
            picture="shares",
            slider="share",
        ),
    ),
)

_DOMAIN = Lesson(
    key=DOMAIN,
    title="4 · Domain adaptation: your question in another place",
    preset="domain",
    target=("rotated-remainder",),
    home=("remainder",),
    slider_label="λ of the domain's model",
    steps=(
        Step(
            "Your scanner stands askew",
            (
                "A model answers your question, what remains of the digit divided by three, on upright images. Now the "
                "images come in rotated. Nobody has labelled rotated images with your question.",
                "But there is a model that was trained on rotated images for something else: to tell the ten digits apart. "
                "It knows the place, not the question.",
                "Merge the two bodies, keep the head that knows the question. (In the paper: a language model that went on "
                "reading biomedical or legal texts, merged with a model of the task.)",
            ),
        ),
        Step(
            "Each knows one half",
            (
                "On rotated validation images your model is right on {alone} %; the domain's body under your head on {donor} %.",
            ),
            picture="bodies",
        ),
        Step(
            "Mixing place and question",
            (
                "Move λ, the share of the domain's model. Thick lines: rotated images, which is what you want. Thin dotted "
                "lines: upright images, which you would rather not lose.",
            ),
            picture="shares",
            slider="share",
        ),
        Step(
            "Your turn",
            (
                "λ is now chosen by the validation images, for each rule by itself. <b>Who is best on rotated test images, "
                "by more than half a point?</b> Look at the curves again by moving λ if you like.",
            ),
            picture="shares",
            slider="share",
            choices=(
                ("Your model as it is", "alone"),
                ("The isotropic average", "isotropic"),
                ("The Fisher merge", "fisher"),
                ("The output ensemble", "ensemble"),
                ("None by more than half a point", "tie"),
            ),
        ),
    ),
)

LESSONS = {lesson.key: lesson for lesson in (_ENSEMBLING, _ROBUST, _INTERMEDIATE, _DOMAIN)}
