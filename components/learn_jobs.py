"""The jobs of the Learn tab: a button that begins one, its progress, and the way to stop it."""

from collections.abc import Callable
from dataclasses import dataclass

import gradio as gr

from components.job_panel import POLL_S, progress_html
from components.jobs import Job

STOPPED = "Stopped. Press the button again to begin anew; Fishers that were finished are kept."


@dataclass(frozen=True)
class LearnJob:
    """The widgets of one job, in the order of `job_state`."""

    start: gr.Button
    stop: gr.Button
    progress: gr.HTML
    timer: gr.Timer
    job_id: gr.State

    def outputs(self) -> list[gr.components.Component]:
        """The outputs of `job_state`."""
        return [self.start, self.stop, self.progress, self.timer, self.job_id]


def create_learn_job(label: str, stop_label: str, elem_id: str) -> LearnJob:
    """The two buttons, and the progress under them."""
    with gr.Row():
        start = gr.Button(label, variant="primary", scale=3, min_width=180)
        stop = gr.Button(stop_label, variant="stop", interactive=False, scale=1, min_width=110)
    return LearnJob(start, stop, gr.HTML(elem_id=elem_id), gr.Timer(POLL_S, active=False), gr.State(""))


def job_state(job: Job | None) -> list[object]:
    """Buttons, progress, whether to ask again, and the job's id."""
    if job is None:
        return [gr.update(interactive=True), gr.update(interactive=False), "", gr.Timer(active=False), ""]
    stoppable = job.active and not job.asked_to_stop.is_set()
    return [
        gr.update(interactive=not job.active),
        gr.update(interactive=stoppable),
        job_progress(job),
        gr.Timer(active=job.active),
        job.id,
    ]


def job_and_frame(job: Job | None, pictured: Callable[[object], list[object]]) -> list[object]:
    """A job's state, and what its result looks like once it is done: sentence, figure, numbers."""
    done = job is not None and job.state == "done" and job.result is not None
    return [*job_state(job), *(pictured(job.result) if done else [gr.skip()] * 3)]


def job_progress(job: Job) -> str:
    """Phase, per cent and time to go; or how it ended."""
    return progress_html(job, name="Measuring", stopped=STOPPED)
