"""What became of the experiments on segmentation: the rule on known answers, runs as they come."""

import json

import pandas as pd
import pytest
import torch

from paperrepro.claims.dense import EXPERIMENTS, FAR, dense_comparisons, load_runs
from paperrepro.claims.outcomes import load_outcomes
from paperrepro.training import dense_studies
from paperrepro.training.dense_studies import DISTANCES, STUDIES, reaches, run_study, study_json


def runs(values, what="miou", **more):
    """Rows of `{variant: [value of each seed]}`."""
    rows = [
        {"variant": variant, "seed": seed, "params": 1, "what": what, "value": value} | more
        for variant, found in values.items()
        for seed, value in enumerate(found)
    ]
    return pd.DataFrame(rows)


def test_a_difference_is_paired_by_seed_with_students_interval():
    """1, 2, 3 points over three seeds: 2, and t(0.975, 2) / sqrt(3) = 2.484 on either side."""
    table = runs({"K = 3": [40.0, 50.0, 60.0], "K = 31": [41.0, 52.0, 63.0]})
    first = dense_comparisons("camvid", table).iloc[0]
    assert first["difference"] == pytest.approx(2) and first["seeds"] == 3
    assert (first["low"], first["high"]) == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-3)
    assert first["visible"] / (1 / 3**0.5) == pytest.approx(5.4, abs=0.3)


def test_only_seeds_of_both_count_and_fewer_than_three_are_not_compared():
    table = runs({"K = 3": [40.0, 50, 60, 70], "K = 31": [41.0, 52, 63], "K = 7": [1.0, 2]})
    found = dense_comparisons("camvid", table)
    assert list(found["variant"]) == ["K = 31"] and found["seeds"].tolist() == [3]
    few = runs({"K = 3": [40.0, 50, 60], "K = 31": [41.0, 52], "K = 7": [1.0, 2, 3]})
    assert dense_comparisons("camvid", few).empty


def test_scenes_decide_by_the_far_distances():
    parts = [
        runs(
            {"K = 3": [50.0, 51, 52], "K = 31": [50.0 + gain, 51 + gain, 52.5 + gain]},
            what="right",
            distance=distance,
        )
        for distance, gain in zip(DISTANCES, (100, 100, 1, 2, 3, 6), strict=True)
    ]
    found = dense_comparisons("scenes", pd.concat(parts))
    assert set(FAR) < set(DISTANCES)
    assert found.loc[found["decides"], "difference"].tolist() == pytest.approx([3 + 0.5 / 3])
    assert found["decides"].tolist() == [True, *[False] * 6]
    assert found["distance"].tolist()[1:] == list(DISTANCES)


def test_finished_runs_are_taken_as_they_are(tmp_path):
    with pytest.raises(FileNotFoundError, match="scenes"):
        run_study("scenes", tmp_path, train=False)
    run = tmp_path / "scenes" / "K=3-1"
    run.mkdir(parents=True)
    kept = runs({"K = 3": [1.0]}, what="right", distance=0).assign(seed=1)
    kept.to_csv(run / "tested.csv", index=False)
    (run / "log.csv").write_text("epoch,train_loss,seconds\n1,0.5,2.2\n2,0.25,2.4\n")
    table = run_study("scenes", tmp_path, train=False)
    assert table["seed"].tolist() == [1]
    told = json.loads(study_json("scenes", tmp_path, table))
    assert told["runs"] == {"K = 3, seed 1": {"epochs": 2, "seconds": 5, "train_loss": 0.25}}
    assert told["recipes"]["K = 3"]["config"]["kernels"] == [3, 3, 3, 3]


def test_an_even_gradient_is_held_in_proportion_to_the_distance(tmp_path, monkeypatch):
    """Of 96 columns 2d + 1 lie within d of the middle; 49, 87 and 96 are the first to suffice."""
    run = tmp_path / "scenes" / "K=31-2"
    run.mkdir(parents=True)
    runs({"K = 31": [1.0]}, what="right").assign(seed=2).to_csv(run / "tested.csv", index=False)
    even = torch.ones(96, 96)
    network = torch.nn.Module()
    network.body = torch.nn.Conv2d(3, 3, 5)
    monkeypatch.setattr(dense_studies, "load_dense", lambda path: network)
    monkeypatch.setattr(dense_studies, "contribution_map", lambda *given, **options: even)
    row = {"variant": "K = 31", "seed": 2, "half": 24, "most": 43, "all": 48, "theory": 2}
    assert reaches(tmp_path, pictures=1).to_dict("records") == [row]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_stored_runs_are_the_designs(name):
    table = load_runs(name)
    assert set(table["variant"]) <= set(STUDIES[name].variants)
    assert table["value"].between(0, 100).all()
    keys = [key for key in table if key not in ("params", "value")]
    assert not table.duplicated(keys).any()
    outcome = f"segmentation-{name}-k-31-against-k-3"
    assert (outcome in set(load_outcomes()["id"])) == (not dense_comparisons(name).empty)
