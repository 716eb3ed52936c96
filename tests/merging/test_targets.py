"""Copies of a model for merges: how many there are, who waits, what is given back."""

import threading

import torch
from torch import nn

from merging.targets import Targets


def test_a_copy_is_made_when_it_is_needed_and_used_again():
    model = nn.Linear(2, 2)
    targets = Targets(model, 2)
    assert targets.kept() == 0
    with targets.one() as first:
        assert first is not model
        assert torch.equal(first.weight, model.weight)
    assert targets.kept() == 1
    with targets.one() as again:
        assert again is first
    targets.forget()
    assert targets.kept() == 0
    with targets.one() as other:
        assert other is not first


def test_who_comes_when_all_are_in_use_waits_and_the_patient_have_copies_of_their_own():
    targets, came = Targets(nn.Linear(2, 2), 1), threading.Event()

    def come():
        with targets.one():
            came.set()

    with targets.one(is_patient=True) as theirs, targets.one() as own:
        assert theirs is not own
        thread = threading.Thread(target=come)
        thread.start()
        assert not came.wait(0.2)
        targets.forget()  # what is in use stays
    assert came.wait(30)
    thread.join(30)
    assert targets.kept() == 2


def test_a_copy_whose_use_failed_is_there_again():
    targets = Targets(nn.Linear(2, 2), 1)
    for _ in range(3):
        try:
            with targets.one():
                raise ValueError
        except ValueError:
            pass
    assert targets.kept() == 1
