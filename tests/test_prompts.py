import json

import pytest

from pipeline.errors import ConfigError, ManifestError
from pipeline.manifests import Manifest, Video, known_manifests, load_manifest
from pipeline.manifests.lists import import_list
from pipeline.prompt_tables import load_prompt_tables, named_video
from pipeline.prompt_words import label_words, objects_of_label, objects_of_placeholders
from pipeline.prompts import (
    PromptSet,
    PromptTables,
    class_prompt_sets,
    prompts_for,
    prompts_sha256,
)

PERSON = load_manifest("hmdb51")


def video(class_name: str, video_id: str = "some/clip") -> Video:
    return Video(video_id=video_id, path="x.avi", class_name=class_name, split="train")


def own(*names: str) -> Manifest:
    return Manifest(name="own", title="own", classes={"train": names, "val": (), "test": ()})


def test_prompts_come_from_the_curated_table():
    prompts = prompts_for(PERSON, video("shoot_ball"))
    assert prompts.objects == ("basketball", "basketball hoop")
    assert (prompts.key, prompts.source) == ("shoot_ball", "table")
    assert prompts.actor[0] == "person"
    assert "person in shirt" in prompts.actor


def test_prompts_of_the_user_come_before_the_table_and_a_video_before_its_class(tmp_path):
    path = tmp_path / "prompts.yaml"
    path.write_text("shoot_ball: [net]\nsome/clip: {actor: [child], objects: [red ball]}\n")
    tables = load_prompt_tables(PERSON, None, user=path, video_ids=["some/clip"])
    single = prompts_for(PERSON, video("shoot_ball"), user_table=tables)
    assert single == PromptSet(
        key="some/clip", actor=("child",), objects=("red ball",), source="yaml"
    )
    other = prompts_for(PERSON, video("shoot_ball", "other/clip"), user_table=tables)
    assert (other.key, other.objects, other.source) == ("shoot_ball", ("net",), "yaml")
    assert prompts_for(PERSON, video("golf", "a/b"), user_table=tables).source == "table"


def test_prompts_of_every_shipped_class_are_those_that_were_reviewed(repository):
    """A change of a table or of the parser shows here, row by row, and wants a second look."""
    reviewed = (repository / "tests" / "golden" / "prompts.tsv").read_text().splitlines()
    rows = [
        "\t".join((name, one.key, ", ".join(one.actor[:1]), ", ".join(one.objects), one.source))
        for name in known_manifests()
        for one in class_prompt_sets(load_manifest(name))
    ]
    assert rows == reviewed


def test_the_two_sources_of_one_class_agree():
    jhmdb = load_manifest("jhmdb21")
    for one in class_prompt_sets(jhmdb):
        assert one == prompts_for(PERSON, video(one.key)), one.key


def test_named_video_has_the_class_of_its_folder_or_of_the_imported_list(tmp_path, split_lists):
    assert named_video(PERSON, tmp_path, "golf/clip_1").class_name == "golf"
    with pytest.raises(ManifestError, match=r"'golfing/a' is no video of hmdb51; <class>/<clip>"):
        named_video(PERSON, tmp_path, "golfing/a")
    small = load_manifest("ssv2-small")
    with pytest.raises(ManifestError, match="run `i2st manifest import ssv2-small"):
        named_video(small, tmp_path, "5")
    for split in ("train", "val", "test"):
        source = split_lists / "original" / f"ssv2_small_{split}.hyrsm.txt"
        import_list("ssv2-small", split, source, None, destination=tmp_path)
    class_name, video_id = (
        (tmp_path / "lists/ssv2-small-val.tsv").read_text().split("\n")[0].split("\t")
    )
    found = named_video(small, tmp_path, video_id)
    assert (found.class_name, found.split) == (class_name, "val")
    with pytest.raises(ManifestError, match="'no' is no video of ssv2-small; an id in the lists"):
        named_video(small, tmp_path, "no")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("shoot_bal: [net]", r"names 'shoot_bal', no class or video of hmdb51 \(did you mean"),
        ("golf: net", "is str; a mapping is needed"),
        ("golf: [a, b, c, d]", "has 4 nouns; at most 3"),
        ("golf: {things: [a]}", "unknown key 'things'"),
        ("[golf]", "is no mapping of class names"),
        ("golf: [1]", "is int; text is needed"),
        ("golf: [a]\ngolf: [b]", "line 2 repeats"),
    ],
)
def test_user_prompts_give_one_line_for_each_fault(tmp_path, text, message):
    path = tmp_path / "prompts.yaml"
    path.write_text(text)
    with pytest.raises(ManifestError, match=message):
        load_prompt_tables(PERSON, None, user=path)


def test_prompts_of_something_something_come_from_the_placeholders(tmp_path):
    (tmp_path / "labels").mkdir()
    entries = [
        {"id": "5", "label": "x", "placeholders": ["a red Cup", "the kitchen table"]},
        {"id": 6, "template": "y", "placeholders": ["tree"]},
    ]
    (tmp_path / "labels" / "train.json").write_text(json.dumps(entries))
    (tmp_path / "something-something-v2-validation.json").write_text("[]")
    manifest = load_manifest("ssv2-small")
    tables = load_prompt_tables(manifest, tmp_path)
    prompts = prompts_for(manifest, video("Moving part of something", "5"), user_table=tables)
    assert prompts == PromptSet(
        key="5", actor=("hand",), objects=("red cup", "kitchen table"), source="placeholders"
    )
    camera = video("Approaching something with your camera", "6")
    filmed = prompts_for(manifest, camera, user_table=tables)
    assert (filmed.actor, filmed.objects, filmed.source) == ((), ("tree",), "placeholders")
    absent = prompts_for(manifest, video("Moving part of something", "7"), user_table=tables)
    assert (absent.actor, absent.objects, absent.source) == (("hand",), (), "parser")


def test_placeholders_are_not_looked_for_where_the_table_is_complete(tmp_path):
    (tmp_path / "train.json").write_text("not json")
    assert load_prompt_tables(PERSON, tmp_path).placeholders == {}


@pytest.mark.parametrize("text", ["{", "{}", "[1]", '[{"id": 1}]', '[{"placeholders": [1]}]'])
def test_placeholder_files_that_are_something_else_are_refused(tmp_path, text):
    (tmp_path / "train.json").write_text(text)
    with pytest.raises(ManifestError, match="train.json is not Something-Something's list"):
        load_prompt_tables(load_manifest("ssv2-small"), tmp_path)


def test_prompts_of_an_unknown_class_come_from_its_name():
    prompts = prompts_for(own("pouring_water_into_glass"), video("pouring_water_into_glass"))
    assert (prompts.objects, prompts.source) == (("water", "glass"), "parser")


@pytest.mark.parametrize(
    ("label", "objects"),
    [
        ("RidingBike", ("bike",)),
        ("ride_bike", ("bike",)),
        ("playing the violin", ("violin",)),
        ("CuttingInKitchen", ("kitchen",)),
        ("boxing punching bag", ("bag",)),
        ("throw a ball to 2 dogs", ("ball", "dogs")),
        ("hurling (sport)", ()),
        ("sky diving", ()),
        ("run", ()),
        ("trimming or shaving beard", ("beard",)),
        ("Putting something next to something", ()),
    ],
)
def test_objects_of_label_drop_verbs_and_stop_words(label, objects):
    assert objects_of_label(label) == objects


@pytest.mark.parametrize(
    ("placeholders", "objects"),
    [
        (("a cup", "two spoons"), ("cup", "spoons")),
        (("salt and pepper",), ("salt", "pepper")),
        (("part of the book",), ("part", "book")),
        (("something", "nothing", "air", "3"), ()),
        (("pen", "a pen"), ("pen",)),
        (("a", "b", "c", "d"), ("b", "c", "d")),
        (
            ("a very long and winding description of my thing",),
            ("very long", "winding description"),
        ),
        (("my mother's old blue bag",), ("mother old blue bag",)),
        (("a piece of paper", "a book"), ("paper", "book")),
        (("two pieces of paper",), ("paper",)),
        (("a bottle of water", "glass"), ("bottle", "water", "glass")),
        (("a deck of cards",), ("deck", "cards")),
        (("A Pen, a pencil and an eraser",), ("pen", "pencil", "eraser")),
        (("sponge", "the edge of a sink"), ("sponge", "edge", "sink")),
        (("usb cable", "laptop computer"), ("usb cable", "laptop computer")),
        (("hair tie", "it"), ("hair tie",)),
        (("2 coins",), ("coins",)),
        (("my hand", "the wall"), ("hand", "wall")),
        (("tea-cup [blue]",), ("tea-cup blue",)),
        (("café table",), ("café table",)),
        ((), ()),
        (("   ",), ()),
        (("box", "box", "box", "lid", "tape"), ("box", "lid", "tape")),
    ],
)
def test_objects_of_placeholders_are_cleaned(placeholders, objects):
    assert objects_of_placeholders(placeholders) == objects


def test_label_words_split_every_spelling():
    assert label_words("ApplyEyeMakeup") == "apply eye makeup"
    assert label_words("hurling (sport)") == "hurling"
    assert label_words("brush_hair") == "brush hair"


def test_prompt_modes_change_what_is_asked_for():
    clip = video("brush_hair")
    assert prompts_for(PERSON, clip, mode="actor_only").objects == ()
    raw = prompts_for(PERSON, clip, mode="raw_label")
    assert (raw.actor, raw.objects) == (("brush hair",), ())
    with pytest.raises(ConfigError, match="unknown prompt mode 'noun'; known: nouns, raw_label"):
        prompts_for(PERSON, clip, mode="noun")


def test_prompts_sha256_depends_on_the_set_alone():
    a, b = (prompts_for(PERSON, video(name)) for name in ("golf", "run"))
    assert prompts_sha256([a, b]) == prompts_sha256(iter([b, a, a])) != prompts_sha256([a])
    tables = PromptTables(placeholders={"1": ("x",)})
    assert prompts_for(PERSON, video("golf", "1"), user_table=tables) == a
