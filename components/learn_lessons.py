"""The lessons' place on the page: one step at a time, something to move, a question and its answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from html import escape

import gradio as gr

from components.frames import Frame, create_frame, empty, framed
from components.job_panel import POLL_S
from components.jobs import REGISTRY
from components.learn_jobs import job_progress
from components.learn_lesson_figures import lesson_picture
from components.learn_numbers import begin_lesson, check, facts, last_job, numbers_of
from components.lessons import LESSONS, Lesson, Step

NAME = "Lesson"
FIRST = next(iter(LESSONS))
COMPUTING = "The models of this lesson are being merged for real; that takes some seconds."
HALTED = "Nothing is computed yet: press “Compute this lesson”."


@dataclass(frozen=True)
class Visit:
    """Where a reader stands: the lesson, and the step of each lesson, so that one can leave and come back."""

    lesson: str = FIRST
    steps: Mapping[str, int] = None

    @staticmethod
    def of(stored: object) -> "Visit":
        """From what the browser kept, which may be anything."""
        try:
            content = json.loads(stored) if isinstance(stored, str) else {}
            lesson = content.get("lesson")
            given = content.get("steps") or {}
            steps = {key: _within(given.get(key, 0), len(LESSONS[key].steps)) for key in LESSONS}
        except (ValueError, AttributeError, TypeError):
            return Visit(FIRST, dict.fromkeys(LESSONS, 0))
        return Visit(lesson if isinstance(lesson, str) and lesson in LESSONS else FIRST, steps)

    @property
    def step(self) -> int:
        """The step of the present lesson."""
        return self.steps[self.lesson]

    def moved(self, by: int) -> "Visit":
        """A step forward or back, within the lesson."""
        step = _within(self.step + by, len(LESSONS[self.lesson].steps))
        return replace(self, steps={**self.steps, self.lesson: step})

    def stored(self) -> str:
        """As the browser keeps it."""
        return json.dumps({"lesson": self.lesson, "steps": dict(self.steps)})


@dataclass(frozen=True)
class LessonPanel:
    """The widgets of the lessons."""

    visit: gr.BrowserState
    lesson: gr.Radio
    text: gr.HTML
    frame: Frame
    count: gr.Slider
    share: gr.Slider
    choice: gr.Radio
    feedback: gr.HTML
    back: gr.Button
    next: gr.Button
    check: gr.Button
    compute: gr.Button
    stop: gr.Button
    progress: gr.HTML
    timer: gr.Timer

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of every event that turns a page: `shown_step`."""
        moved = [self.count, self.share, self.choice, self.feedback]
        buttons = [self.back, self.next, self.check, self.compute, self.stop]
        return [self.visit, self.lesson, self.text, *self.frame.outputs(), *moved, *buttons, self.progress, self.timer]

    def moved(self) -> list[gr.components.Component]:
        """What the reader moved: the inputs of every event."""
        return [self.visit, self.count, self.share]


def create_lessons() -> LessonPanel:
    """The first step of the first lesson; its numbers are computed when the reader goes on."""
    gr.Markdown(
        "## The paper's four uses, in two minutes each\n"
        "Every number is computed here, on small models that read handwritten digits. Each lesson ends with a question."
    )
    visit = gr.BrowserState("", storage_key="fisher-merge-studio-lessons", secret="fisher-merge-studio")
    lesson = gr.Radio([(one.title, one.key) for one in LESSONS.values()], value=FIRST, label="Lesson")
    text = gr.HTML(elem_id="lesson-text")
    frame = create_frame(NAME, "lesson")
    count = gr.Slider(1, 5, value=2, step=1, label="Number of models", visible=False, interactive=True, buttons=[])
    share = gr.Slider(0, 1, value=0.5, step=0.05, label="λ of the second", visible=False, interactive=True, buttons=[])
    # All answers there are: those of a step are shown with it.
    answers = {value: label for one in LESSONS.values() for label, value in one.steps[-1].choices}
    choice = gr.Radio([(label, value) for value, label in answers.items()], label="Your answer", visible=False)
    with gr.Row():
        back = gr.Button("Back", min_width=90, interactive=False)
        forward = gr.Button("Next", variant="primary", min_width=90)
        checked = gr.Button("Check my answer", variant="primary", min_width=140, visible=False)
        compute = gr.Button("Compute this lesson", variant="primary", min_width=160, visible=False)
        stop = gr.Button("Stop the lesson", variant="stop", min_width=120, visible=False)
    feedback = gr.HTML(elem_id="lesson-feedback")
    progress = gr.HTML(elem_id="lesson-progress")
    timer = gr.Timer(POLL_S, active=False)
    moved = (count, share, choice, feedback, back, forward, checked, compute, stop, progress, timer)
    return LessonPanel(visit, lesson, text, frame, *moved)


def reopened(stored: object, count: float, share: float) -> list[object]:
    """The page of a reader who comes (back) to the tab."""
    return shown_step(Visit.of(stored), count, share)


def chosen(key: str, stored: object, count: float, share: float) -> list[object]:
    """Another lesson, at the step where it was left."""
    visit = Visit.of(stored)
    return shown_step(replace(visit, lesson=key) if key in list(LESSONS) else visit, count, share)


def went_back(stored: object, count: float, share: float) -> list[object]:
    """One step back."""
    return shown_step(Visit.of(stored).moved(-1), count, share)


def went_on(stored: object, count: float, share: float) -> list[object]:
    """One step on; the first one begins the lesson's job."""
    visit = Visit.of(stored).moved(1)
    return _computed(visit, count, share)


def computed(stored: object, count: float, share: float) -> list[object]:
    """Begins the lesson's job again, after it was stopped or has failed."""
    return _computed(Visit.of(stored), count, share)


def stopped(stored: object, count: float, share: float) -> list[object]:
    """Asks the lesson's job to stop."""
    visit = Visit.of(stored)
    if (job := last_job(visit.lesson)) is not None:
        REGISTRY.stop(job.id)
    return shown_step(visit, count, share)


def polled(stored: object, count: float, share: float) -> list[object]:
    """Where the lesson's job stands; its step as soon as it is done."""
    visit = Visit.of(stored)
    job = last_job(visit.lesson)
    if job is None or not job.active:
        return shown_step(visit, count, share)
    return [*[gr.skip()] * 15, job_progress(job), gr.skip()]


def redrawn(stored: object, count: float, share: float) -> list[object]:
    """The picture after a slider was moved: sentence, figure, numbers."""
    visit = Visit.of(stored)
    lesson, numbers = LESSONS[visit.lesson], numbers_of(visit.lesson)
    step = lesson.steps[visit.step]
    if numbers is None or not step.picture:
        return [gr.skip()] * 3
    return _picture(lesson, step, count, share)


def answered(stored: object, count: float, share: float, choice: str | None) -> str:
    """Whether the answer is right, and why."""
    visit = Visit.of(stored)
    lesson, numbers = LESSONS[visit.lesson], numbers_of(visit.lesson)
    if numbers is None:
        return _feedback(False, HALTED)
    verdict = check(lesson, numbers, choice=choice, share=_number(share, 0.5))
    start = {True: "Right. ", False: "Not quite. ", None: ""}[verdict.right]
    return _feedback(bool(verdict.right), start + verdict.text)


def shown_step(visit: Visit, count: float, share: float) -> list[object]:
    """Everything of a step, in the order of `LessonPanel.outputs`."""
    lesson, numbers, last = LESSONS[visit.lesson], numbers_of(visit.lesson), len(LESSONS[visit.lesson].steps) - 1
    step, job = lesson.steps[visit.step], last_job(visit.lesson)
    busy = job is not None and job.active
    ready = numbers is not None or not step.picture
    picture = _picture(lesson, step, count, share) if ready and step.picture else ["", None, ""]
    if not ready:
        picture = empty(COMPUTING if busy else HALTED)
    asks = ready and step.asks
    return [
        visit.stored(),
        visit.lesson,
        _text(lesson, visit.step, ready),
        *picture,
        gr.update(visible=ready and step.slider == "count"),
        gr.update(visible=ready and step.slider == "share", label=lesson.slider_label or "λ of the second model"),
        gr.update(visible=True, choices=list(step.choices), value=None)
        if asks and step.choices
        else gr.update(visible=False),
        "",
        gr.update(interactive=visit.step > 0),
        # Never disabled: a button that is loses the keyboard's focus.
        gr.update(visible=visit.step < last, value="Next" if visit.step else "Start"),
        gr.update(visible=asks),
        gr.update(visible=not ready and not busy),
        gr.update(visible=busy),
        job_progress(job) if busy or (job and not ready) else "",
        gr.Timer(active=busy),
    ]


def _computed(visit: Visit, count: float, share: float) -> list[object]:
    if numbers_of(visit.lesson) is None:
        begin_lesson(visit.lesson)
    return shown_step(visit, count, share)


def _picture(lesson: Lesson, step: Step, count: float, share: float) -> list[object]:
    moved = {"count": round(_number(count, 2)), "share": _number(share, 0.5)}
    return framed(lesson_picture(step.picture, lesson, numbers_of(lesson.key), **moved), f"{NAME}, {step.title}")


def _text(lesson: Lesson, at: int, ready: bool) -> str:
    step, numbers = lesson.steps[at], numbers_of(lesson.key)
    words = facts(lesson, numbers) if numbers is not None else {}
    # Without its numbers a text with braces would be a riddle.
    told = [text.format_map(words) for text in step.text if words or "{" not in text]
    paragraphs = "".join(f"<p>{text}</p>" for text in told)
    head = f"<h3>{escape(step.title)}</h3><p class='studio-source'>Step {at + 1} of {len(lesson.steps)}</p>"
    return f'<div class="studio-lesson" aria-live="polite">{head}{paragraphs}</div>'


def _feedback(right: bool, text: str) -> str:
    return f'<div class="studio-notice {"good" if right else ""}" role="status">{escape(text)}</div>'


def _within(value: object, count: int) -> int:
    return int(max(0, min(count - 1, value))) if isinstance(value, int | float) and value == value else 0


def _number(value: object, otherwise: float) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return otherwise
    return max(-1e6, min(1e6, number)) if number == number else otherwise
