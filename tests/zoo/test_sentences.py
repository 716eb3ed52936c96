"""The embedded pool of generated sentences is what it says it is, and its builder makes it again."""

import re
from collections import Counter
from itertools import product
from pathlib import Path

import datasets
import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import merging
from merging.errors import PoolError
from merging.recipe import EvaluationSettings, FisherSettings, preset_recipe
from merging.zoo import ZOO_FOLDER, names
from merging.zoo.build import BUILDERS, main
from merging.zoo.build_sentences import SentencesSettings, build, mixture_labels, stages
from merging.zoo.sentences_data import SPLIT_SIZES, draw_more, split_sentences, write_data
from merging.zoo.sentences_grammar import vocabulary

POOL_FOLDER = ZOO_FOLDER / "sentences-gpt2"
POOL = yaml.safe_load((POOL_FOLDER / "pool.yaml").read_text(encoding="utf-8"))
TASKS = ("sentiment", "paraphrase", "entailment", "acceptability")
EXPERTS = TASKS
SEEDS = ("entailment-1", "entailment-2")
MODELS = (*EXPERTS, *SEEDS)
WRITTEN_SPLITS = ("fisher", "validation", "test")
POOL_SIZE_LIMIT_BYTES = 5_000_000
LEAST_ACCURACY = {"sentiment": 0.97, "paraphrase": 0.9, "entailment": 0.85, "acceptability": 0.9}

# The language once more, written apart from the generator.
PEOPLE = "farmer|teacher|doctor|singer|baker|nurse"
MORE_PEOPLE = "writer|painter|driver|pilot|sailor|soldier"
KINDS = {
    "animal": {"dog", "cat", "horse", "goat"},
    "vehicle": {"car", "bus", "boat", "train"},
    "fruit": {"pear", "plum", "melon", "lemon"},
    "flower": {"rose", "tulip", "lily", "daisy"},
}
THINGS = "|".join([*KINDS, *(noun for nouns in KINDS.values() for noun in nouns)])
PERSON_ADJECTIVES = "clever|rich|strong|quiet|brave|cheerful"
THING_ADJECTIVES = "big|small|red|white|new|pretty"
PLACES = "in the garden|near the river|at the station|behind the school|on the bridge|in the kitchen"
BASES = "help|assist|watch|observe|call|phone|hire|employ|scare|frighten|cure|heal|find|want|paint|sell|wash|carry"
THIRDS = (
    "helps|assists|watches|observes|calls|phones|hires|employs|scares|frightens|cures|heals"
    "|finds|wants|paints|sells|washes|carries"
)
PASTS = (
    "helped|assisted|watched|observed|called|phoned|hired|employed|scared|frightened|cured|healed"
    "|found|wanted|painted|sold|washed|carried"
)
PAST_OF_THINGS = dict(zip(BASES.split("|")[-6:], PASTS.split("|")[-6:], strict=True))
GOOD = re.compile(r"great|lovely|brilliant|delightful|superb|charming|\b(enjoy|love|like)")
BAD = re.compile(r"awful|boring|terrible|dull|dreadful|poor|\b(hate|dislike|regret)")


def read_split(folder: Path, task: str, split: str) -> datasets.Dataset:
    """One split as a reader of parquet files sees it, without leaving a cache behind."""
    return datasets.Dataset.from_parquet(str(folder / "data" / task / f"{split}.parquet"), keep_in_memory=True)


def task_fields(name: str) -> dict:
    """The content of a task.yaml."""
    return yaml.safe_load((POOL_FOLDER / "tasks" / name / "task.yaml").read_text(encoding="utf-8"))


def rows_of(task: str, split: str) -> list[tuple[tuple[str, ...], str]]:
    """The texts and the label's name of every row."""
    fields, rows = task_fields(task), read_split(POOL_FOLDER, task, split)
    texts = zip(*(rows[column] for column in fields["text"]), strict=True)
    return [(own, fields["labels"][label]) for own, label in zip(texts, rows["label"], strict=True)]


def feeling(sentence: str) -> str:
    """Who says `but` or `although` means the other part; a negated word is its opposite."""
    part = sentence.split(" but ")[-1].split(" , ")[-1]
    is_good = bool(GOOD.search(part))
    assert is_good != bool(BAD.search(part).group() if BAD.search(part) else False)
    return "positive" if is_good != bool(re.search(r"\b(not|never)\b", part)) else "negative"


def deed(sentence: str) -> tuple[str, int, str, str]:
    """Who, which deed (two verbs each), to whom, where."""
    people = f"{PEOPLE}|{MORE_PEOPLE}"
    if active := re.fullmatch(rf"the ({people}) ({PASTS}) the ({people}) ?({PLACES})?", sentence):
        agent, verb, patient, place = active.groups()
    else:
        passive = re.fullmatch(rf"the ({people}) was ({PASTS}) by the ({people}) ?({PLACES})?", sentence)
        patient, verb, agent, place = passive.groups()
    return agent, PASTS.split("|").index(verb) // 2, patient, place or ""


def change(one: str, two: str) -> str:
    """The one part in which two sentences tell of different things: `roles` where two people changed theirs."""
    (agent, verb, patient, place), (other_agent, other_verb, other_patient, other_place) = deed(one), deed(two)
    assert verb == other_verb
    if swapped := (agent, patient) == (other_patient, other_agent):
        other_agent, other_patient = agent, patient
    parts = {"roles": swapped, "agent": agent != other_agent}
    parts |= {"patient": patient != other_patient, "place": place != other_place}
    (part,) = (name for name, differs in parts.items() if differs)
    return part


def events(sentence: str) -> tuple[tuple[str, ...], str, set[tuple[str, str, str]]]:
    """Negation, agent and verb; the agent's adjective; and all (thing, look, place) that the object's words fit."""
    pattern = rf"the (?:({PERSON_ADJECTIVES}) )?({PEOPLE}) (did not )?(\w+) an? (?:(\w+) )?({THINGS}) ?({PLACES})?"
    adjective, agent, negation, verb, look, noun, place = re.fullmatch(pattern, sentence).groups()
    things, looks, places = (
        KINDS.get(noun, {noun}),
        [look] if look else [*THING_ADJECTIVES.split("|"), "plain"],
        [place] if place else [*PLACES.split("|"), "elsewhere"],
    )
    frame = (negation or "", agent, PAST_OF_THINGS.get(verb, verb))
    return frame, adjective or "", set(product(things, looks, places))


def follows(premise: str, hypothesis: str) -> str:
    """By cases: whatever event makes the premise true makes the hypothesis true, too."""
    (frame, adjective, known), (other_frame, other_adjective, asked) = events(premise), events(hypothesis)
    is_subset = asked <= known if frame[0] else known <= asked
    holds = frame == other_frame and other_adjective in ("", adjective) and is_subset
    return "entailment" if holds else "not_entailment"


def well_formed(sentence: str) -> str:
    """By one regular expression for each number of the subject and each voice."""
    one, many = (rf"the (?:(?:{PERSON_ADJECTIVES}) )?(?:{PEOPLE}){ending}" for ending in ("", "s"))
    thing = rf"(?:an (?=[aeiou])|a (?![aeiou]))(?:(?:{THING_ADJECTIVES}) )?(?:{THINGS})"
    anyone = rf"(?:{one}|{many})"
    clauses = [
        rf"{one} (?:{THIRDS}|{PASTS}|(?:does|did) not (?:{BASES})) (?:{anyone}|{thing})",
        rf"{many} (?:{BASES}|{PASTS}|(?:do|did) not (?:{BASES})) (?:{anyone}|{thing})",
        rf"(?:{one}|{thing}) (?:is|was) (?:not )?(?:{PASTS}) by {anyone}",
        rf"{many} (?:are|were) (?:not )?(?:{PASTS}) by {anyone}",
    ]
    is_right = any(re.fullmatch(rf"{clause}(?: (?:{PLACES}))?", sentence) for clause in clauses)
    return "acceptable" if is_right else "unacceptable"


JUDGES = {
    "sentiment": feeling,
    "paraphrase": lambda one, two: "same" if deed(one) == deed(two) else "different",
    "entailment": follows,
    "acceptability": well_formed,
}


@torch.no_grad()
def chosen_labels(checkpoint: str, texts: list[tuple[str, ...]]) -> list[str]:
    """What a checkpoint says, through its saved tokenizer, as a user of it asks."""
    folder = POOL_FOLDER / "checkpoints" / checkpoint
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).eval()
    columns = [list(column) for column in zip(*texts, strict=True)]
    chosen = model(**tokenizer(*columns, padding=True, return_tensors="pt")).logits.argmax(dim=-1)
    return [model.config.id2label[index] for index in chosen.tolist()]


def accuracy_of(checkpoint: str, task: str, split: str) -> float:
    """The share of rows whose label the checkpoint says."""
    texts, labels = zip(*rows_of(task, split), strict=True)
    return sum(map(str.__eq__, chosen_labels(checkpoint, texts), labels)) / len(labels)


def test_sentences_are_an_embedded_pool_and_say_that_they_are_synthetic():
    assert "sentences-gpt2" in names()
    assert "synthetic" in POOL["description"]
    assert all("synthetic" in task_fields(task)["title"] for task in TASKS)


@pytest.mark.parametrize("split", WRITTEN_SPLITS)
@pytest.mark.parametrize("task", TASKS)
def test_every_label_is_what_the_sentences_say(task: str, split: str):
    rows = rows_of(task, split)
    assert len(rows) == SPLIT_SIZES[split]
    wrong = [(texts, label) for texts, label in rows if JUDGES[task](*texts) != label]
    assert not wrong


@pytest.mark.parametrize("split", WRITTEN_SPLITS)
@pytest.mark.parametrize("task", TASKS)
def test_each_label_has_half_of_the_rows(task: str, split: str):
    labels = read_split(POOL_FOLDER, task, split)["label"]
    assert 2 * sum(labels) == len(labels)


@pytest.mark.parametrize("task", TASKS)
def test_no_sentence_nor_pair_in_either_order_occurs_twice_even_among_the_rows_of_the_base(task: str):
    texts = [texts for split in WRITTEN_SPLITS for texts, _ in rows_of(task, split)]
    texts += draw_more(split_sentences(seed=0)[task], task, 504, seed=0).texts
    assert len({tuple(sorted(own)) for own in texts}) == len(texts) == sum(SPLIT_SIZES.values()) + 504
    assert all(len(set(own)) == len(own) for own in texts)


@pytest.mark.parametrize("split", WRITTEN_SPLITS)
def test_a_pair_differs_in_one_part_most_often_the_roles_and_never_the_deed(split: str):
    changes = Counter(change(*texts) for texts, label in rows_of("paraphrase", split) if label == "different")
    assert set(changes) == {"roles", "agent", "patient", "place"}
    assert changes["roles"] / changes.total() >= 0.45
    assert min(changes.values()) / changes.total() >= 0.05


def test_the_words_alone_do_not_decide():
    synonyms = {"same": [], "different": []}
    for texts, label in rows_of("paraphrase", "fisher"):
        first, second = (re.search(PASTS, text).group() for text in texts)
        synonyms[label].append(first != second)
    assert all(0.42 <= sum(own) / len(own) <= 0.58 for own in synonyms.values())
    negated = [label for texts, label in rows_of("sentiment", "test") if re.search(r"\b(not|never)\b", texts[0])]
    assert 0.4 <= negated.count("positive") / len(negated) <= 0.6


@pytest.mark.parametrize("checkpoint", [POOL["base"], *MODELS])
def test_a_checkpoint_is_safe_and_speaks_the_labels_of_its_task(checkpoint: str):
    folder = POOL_FOLDER / "checkpoints" / checkpoint
    files = {path.name for path in folder.iterdir()}
    assert files == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    config = AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True).config
    tasks = {model["name"]: model["task"] for model in POOL["models"]}
    labels = list(mixture_labels()) if checkpoint == POOL["base"] else task_fields(tasks[checkpoint])["labels"]
    assert [config.id2label[index] for index in range(config.num_labels)] == labels
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    assert tokenizer.pad_token_id == config.pad_token_id != tokenizer.eos_token_id


def test_the_tokenizer_knows_every_word_and_no_text_is_cut():
    tokenizer = AutoTokenizer.from_pretrained(POOL_FOLDER / "checkpoints" / "base", local_files_only=True)
    assert tokenizer.unk_token_id not in tokenizer(" ".join(vocabulary()))["input_ids"]
    for task in TASKS:
        tokens = [tokenizer(*texts)["input_ids"] for split in WRITTEN_SPLITS for texts, _ in rows_of(task, split)]
        assert max(map(len, tokens)) <= tokenizer.model_max_length
        assert not any(tokenizer.unk_token_id in row for row in tokens)


def test_the_pool_is_small():
    assert sum(path.stat().st_size for path in POOL_FOLDER.rglob("*") if path.is_file()) <= POOL_SIZE_LIMIT_BYTES


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize(("task", "least"), LEAST_ACCURACY.items())
def test_an_expert_is_good_at_its_own_task(task: str, least: float, split: str):
    assert accuracy_of(task, task, split) >= least


def test_a_pair_with_swapped_roles_is_no_guess():
    rows = [texts for texts, label in rows_of("paraphrase", "validation") if label == "different"]
    swapped = [texts for texts in rows if change(*texts) == "roles"]
    assert len(swapped) >= 60
    assert chosen_labels("paraphrase", swapped).count("different") / len(swapped) >= 0.85


@pytest.mark.parametrize("checkpoint", SEEDS)
def test_a_further_seed_is_another_model_of_the_same_task(checkpoint: str):
    one, other = (
        load_file(POOL_FOLDER / "checkpoints" / name / "model.safetensors") for name in (checkpoint, "entailment")
    )
    assert one.keys() == other.keys()
    assert any(not torch.equal(one[name], other[name]) for name in one)
    apart = (one["score.weight"] - other["score.weight"]).norm()
    assert 0 < apart <= 0.1 * other["score.weight"].norm()  # heads of one start, so that they can be merged
    assert accuracy_of(checkpoint, "entailment", "validation") >= LEAST_ACCURACY["entailment"]


def test_the_three_seeds_merge_with_their_heads():
    evaluation = EvaluationSettings(split="validation")
    recipe = preset_recipe(merging.open_pool("sentences-gpt2"), "three-seeds", evaluation=evaluation)
    scores = merging.run(recipe).scores
    least = LEAST_ACCURACY["entailment"]
    assert all(score.value >= least for method in ("fisher", "isotropic") for score in scores[method].values())


def test_the_four_tasks_merge_and_the_fisher_differs_from_the_plain_mean():
    settings = {"fisher": FisherSettings(examples=32), "evaluation": EvaluationSettings(examples=64)}
    result = merging.run(preset_recipe(merging.open_pool("sentences-gpt2"), "four-tasks", **settings))
    assert {tuple(scores) for scores in result.scores.values()} == {EXPERTS}
    assert set(result.scores) == {"fisher", "isotropic", "ensemble", "experts"}
    plain = result.prepared.merge(result.recipe, rule="isotropic")
    assert all(bool(value.isfinite().all()) for value in result.merged.values())
    assert any(not torch.equal(value, plain[name]) for name, value in result.merged.items())


def test_rebuilt_data_is_identical(tmp_path: Path):
    write_data(tmp_path, split_sentences(seed=0))
    committed = sorted(path.relative_to(POOL_FOLDER) for path in POOL_FOLDER.glob("data/*/*.parquet"))
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.glob("data/*/*.parquet")) == committed
    for path in committed:
        rebuilt, kept = (read_split(folder, path.parent.name, path.stem) for folder in (tmp_path, POOL_FOLDER))
        assert rebuilt.features == kept.features
        assert rebuilt.to_dict() == kept.to_dict()


def test_another_seed_draws_other_rows():
    first, second = split_sentences(seed=0), split_sentences(seed=1)
    assert all(first[task]["test"].texts != second[task]["test"].texts for task in TASKS)


def test_a_short_build_is_openable_twice_the_same_and_leaves_the_global_generator_alone(tmp_path: Path):
    state = torch.get_rng_state()
    short = SentencesSettings(base_rows=200, base_epochs=1, expert_epochs=1)
    for attempt, stage in product(("first", "second"), ("base", "sentiment")):
        build(tmp_path / attempt, seed=5, only=stage, settings=short)
    assert torch.equal(torch.get_rng_state(), state)
    for stage in ("base", "sentiment"):
        folders = [tmp_path / attempt / "checkpoints" / stage for attempt in ("first", "second")]
        first, second = (load_file(folder / "model.safetensors") for folder in folders)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first)
        AutoModelForSequenceClassification.from_pretrained(folders[0], local_files_only=True)


def test_an_expert_without_its_base_is_refused(tmp_path: Path):
    with pytest.raises(PoolError, match=r'"sentiment" has no start: expected the base .* Build "base" first'):
        build(tmp_path, only="sentiment")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sentence-gpt2"], 'Unknown pool: .* Did you mean "sentences-gpt2"'),
        (["sentences-gpt2", "--only", "sentimen"], 'Unknown stage: .* Did you mean "sentiment"'),
        (["digits", "--only", "sentiment"], 'Unknown stage: .*"parity"'),
        (["sentences-gpt2", "--only", "sentiment", "--output", "/nowhere"], 'Build "base" first'),
    ],
)
def test_the_command_line_refuses_what_it_cannot_build(arguments: list[str], message: str, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert re.search(message, capsys.readouterr().err.replace("\n", " "))


def test_the_command_line_builds_one_stage_of_a_pool(tmp_path: Path, capsys):
    main(["sentences-gpt2", "--only", "data", "--output", str(tmp_path)])
    assert "data and tasks written" in capsys.readouterr().out
    assert merging.open_task(str(tmp_path / "tasks" / "entailment")).labels == ("entailment", "not_entailment")


def test_every_embedded_pool_has_a_builder():
    assert set(names()) <= set(BUILDERS)
    assert stages() == ["data", "base", *MODELS]
