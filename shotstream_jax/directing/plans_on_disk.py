"""Plans as `shot_NN.json` holds them, those of earlier releases included."""

import copy
import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from shotstream_jax.story import ShotPlan, Story

PlanDocument = dict[str, Any]


def plan_document(plan: ShotPlan) -> PlanDocument:
    """A plan in plain JSON values."""
    # Through text, so that tuples are lists, as in the file that it will be compared with.
    return json.loads(json.dumps(dataclasses.asdict(plan)))


def upgraded(document: Mapping[str, Any], story: Story) -> PlanDocument:
    """A plan of any release, as this release writes it.

    Release 0.1 listed the captions of all shots so far and named context frames by place.
    """
    if "captions" not in document:
        return dict(document)
    captions, index = document["captions"], document["index"]

    def source(ref: Mapping[str, int]) -> PlanDocument:
        frame = {"shot_id": story.shot_id(ref["shot"]), "take": 0, "frame": ref["frame"]}
        return {"source": frame, "caption": captions[ref["shot"]], "rope_shot": ref["shot"]}

    kept = {name: document[name] for name in ("index", "chunks", "seed", "transition", "rope_shot")}
    return {
        **kept,
        "shot_id": story.shot_id(index),
        "take": 0,
        "caption": captions[document["caption_index"]],
        # Format 1 of stories, the only one then, keys noise by the shot's place.
        "noise_shot": index,
        "continues": {"shot_id": story.shot_id(index - 1), "take": 0}
        if document["transition"] == "continue"
        else None,
        "context": [source(ref) for ref in document["context"]],
        # Nothing else existed; the film goes on as it was begun.
        "positions": "running",
    }


def difference(filmed: PlanDocument, asked: PlanDocument) -> tuple[str | None, bool]:
    """The first field in which two plans differ, takes of earlier shots apart.

    Returns:
      The field, or `None`; and whether the plans name other takes of earlier shots.
    """
    # Another take of an earlier shot leaves this one valid, if stale: it is reported, not refused.
    same_takes = _without_takes(filmed), _without_takes(asked)
    for name in asked:
        if same_takes[0].get(name) != same_takes[1][name]:
            return name, False
    # What else a file holds, such as checksums, is not part of the plan.
    return None, any(filmed.get(name) != value for name, value in asked.items())


def _without_takes(document: PlanDocument) -> PlanDocument:
    document = copy.deepcopy(document)
    for frame in document.get("context", ()):
        frame["source"].pop("take", None)
    if document.get("continues"):
        document["continues"].pop("take", None)
    return document
