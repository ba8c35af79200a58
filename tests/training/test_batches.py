"""`batches`: after a restore come the batches that would have come, and every random stream goes on as it would."""

import random

import numpy as np
import pytest
import torch
from programs_of_training import run, run_again, run_until
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    Sampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

import ipyrescue
from ipyrescue.errors import RescueError
from ipyrescue.training import streams
from ipyrescue.training.loading import source_of_batches
from ipyrescue.training.samplers import seed_of

SAMPLES = 23


class Numbers(Dataset):
    """Says which of its samples were read; what it draws depends on the sample."""

    def __init__(self, drawing=False):
        self.drawing = drawing
        self.read = []

    def __len__(self):
        return SAMPLES

    def __getitem__(self, index):
        self.read.append(index)
        return index + (torch.rand(1 + index % 3).sum().item() + np.random.rand() if self.drawing else 0.0)


class Fetching(Numbers):
    def __getitems__(self, indices):
        return [self[index] for index in indices]


class Stream(IterableDataset):
    def __iter__(self):
        yield from range(SAMPLES)


class KnowingStream(IterableDataset):
    """Goes on where its state says, as torchdata wants it."""

    def __init__(self):
        self.at = 0

    def __iter__(self):
        while self.at < SAMPLES:
            self.at += 1
            yield self.at - 1 + torch.rand(()).item()
        self.at = 0

    def state_dict(self):
        return {"at": self.at}

    def load_state_dict(self, state):
        self.at = state["at"]


class AllAtOnce(Sampler):
    """Draws from all three global streams, in the beginning."""

    def __init__(self, count=SAMPLES):
        self.count = count

    def __iter__(self):
        order = torch.randperm(self.count).tolist()
        random.shuffle(order)
        yield from np.random.permutation(order).tolist()

    def __len__(self):
        return self.count


class OwnGenerators(Sampler):
    """Draws while it goes, from generators of its own."""

    def __init__(self):
        self.own = random.Random(3)
        self.numpy = np.random.default_rng(4)
        self.torch = torch.Generator().manual_seed(5)

    def __iter__(self):
        for _ in range(SAMPLES):
            least = self.own.randrange(3) + self.numpy.integers(3)
            yield int(least + torch.randint(SAMPLES - 4, (), generator=self.torch))

    def __len__(self):
        return SAMPLES


class WhileTraining(Sampler):
    """Draws from a global stream while training does the same: its order cannot be found again."""

    def __iter__(self):
        for _ in range(SAMPLES):
            yield int(torch.randint(SAMPLES, ()))

    def __len__(self):
        return SAMPLES


class OddBatches(Sampler):
    def __iter__(self):
        order = torch.randperm(SAMPLES).tolist()
        while order:
            size = 1 + order[0] % 4
            yield torch.tensor(order[:size])
            order = order[size:]

    def __len__(self):
        return 9


def seeded(seed):
    return torch.Generator().manual_seed(seed)


MAP_LOADERS = {
    "in order": lambda data: DataLoader(data, batch_size=4),
    "shuffled": lambda data: DataLoader(data, batch_size=4, shuffle=True),
    "shuffled, own generator": lambda data: DataLoader(data, batch_size=4, shuffle=True, generator=seeded(1)),
    "drop_last": lambda data: DataLoader(data, batch_size=4, shuffle=True, drop_last=True),
    "no batches": lambda data: DataLoader(data, batch_size=None, shuffle=True),
    "with replacement": lambda data: DataLoader(data, batch_size=4, sampler=RandomSampler(data, replacement=True)),
    "with replacement, own generator": lambda data: DataLoader(
        data, batch_size=4, sampler=RandomSampler(data, replacement=True, num_samples=40, generator=seeded(2))
    ),
    "three times over": lambda data: DataLoader(
        data, batch_size=9, sampler=RandomSampler(data, num_samples=60, generator=seeded(2))
    ),
    "weighted": lambda data: DataLoader(data, batch_size=4, sampler=WeightedRandomSampler([1.0] * SAMPLES, SAMPLES)),
    "a subset": lambda data: DataLoader(data, batch_size=4, sampler=SubsetRandomSampler(range(3, 20))),
    "a list": lambda data: DataLoader(data, batch_size=4, sampler=[5, 3, 2, 1, 7, 8, 9, 2, 2]),
    "all at once": lambda data: DataLoader(data, batch_size=4, sampler=AllAtOnce()),
    "own generators": lambda data: DataLoader(data, batch_size=4, sampler=OwnGenerators()),
    "batch sampler": lambda data: DataLoader(data, batch_sampler=BatchSampler(AllAtOnce(), 5, drop_last=False)),
    "odd batches": lambda data: DataLoader(
        data, batch_sampler=OddBatches(), collate_fn=lambda samples: torch.tensor(samples)
    ),
}

TRAINING = """
    import torch, random, numpy as np
    torch.manual_seed(7); random.seed(8); np.random.seed(9)
    loader = make()
    for epoch in ipyrescue.loop(range(2), name="epochs"):
        for batch in ipyrescue.batches(loader, seed_samples=seed_samples):
            seen.append(batch.tolist() if hasattr(batch, "tolist") else batch)
            seen.append([torch.rand(len(seen) % 3).tolist(), random.random(), np.random.rand()])
            checkpoint()
    """


def setup_for(make, *, seed_samples=False):
    return {"ipyrescue": ipyrescue, "make": make, "seed_samples": seed_samples}


def assert_goes_on_exactly(make, *, seed_samples=False, every=1):
    setup = setup_for(make, seed_samples=seed_samples)
    whole = run(TRAINING, {**setup, "seen": [], "checkpoint": lambda: None})["seen"]
    after = streams.read()
    for die_at in range(1, len(whole) // 2 + 1, every):
        snapshot = run_until(TRAINING, ("seen",), die_at, {**setup, "seen": []})
        again = run_again(TRAINING, snapshot, setup)

        assert again["seen"] == whole, die_at
        assert_same_streams(streams.read(), after)


def assert_same_streams(one, other):
    assert one["python"] == other["python"]
    assert torch.equal(one["torch"], other["torch"])
    assert np.array_equal(one["numpy"][1], other["numpy"][1])
    assert one["numpy"][2:] == other["numpy"][2:]


@pytest.mark.parametrize("drawing", [False, True], ids=["plain data", "data that draws"])
@pytest.mark.parametrize("make", MAP_LOADERS.values(), ids=MAP_LOADERS)
def test_every_map_style_loader_goes_on_exactly_from_every_batch(make, drawing):
    assert_goes_on_exactly(lambda: make(Numbers(drawing)), every=3)


@pytest.mark.parametrize("data", [Numbers(drawing=True), Fetching(drawing=True)], ids=["one by one", "many at once"])
def test_samples_with_seeds_of_their_own_go_on_exactly(data):
    assert_goes_on_exactly(lambda: DataLoader(data, batch_size=4, shuffle=True), seed_samples=True)


@pytest.mark.parametrize(
    "options",
    [
        {"num_workers": 2},
        {"num_workers": 2, "persistent_workers": True},
        {"num_workers": 1, "prefetch_factor": 3, "seed": 4},
    ],
    ids=["two", "kept", "one, far ahead"],
)
def test_with_workers_the_order_is_exact_and_samples_with_seeds_of_their_own_are(options):
    def make(seed=None, **others):
        generator = None if seed is None else seeded(seed)
        return DataLoader(Numbers(drawing=True), batch_size=4, shuffle=True, generator=generator, **others)

    assert_goes_on_exactly(lambda: make(**options), seed_samples=True, every=8)


@pytest.mark.slow
@pytest.mark.parametrize("kept", [False, True])
def test_samplers_that_draw_as_they_go_are_exact_with_workers_too(kept):
    def make():
        return DataLoader(Numbers(), batch_size=4, sampler=OwnGenerators(), num_workers=2, persistent_workers=kept)

    with pytest.warns(UserWarning, match="order of the samples is exact"):
        assert_goes_on_exactly(make, every=5)


def test_seeded_samples_do_not_depend_on_the_number_of_workers():
    def samples(workers):
        torch.manual_seed(0)
        loader = DataLoader(Numbers(drawing=True), batch_size=4, shuffle=True, num_workers=workers)
        return [batch.tolist() for batch in ipyrescue.batches(loader, seed_samples=True)]

    assert samples(0) == samples(2)


SEEDED_LOADERS = {
    "shuffled": {"shuffle": True},
    "own generator": {"generator": 1},
    "own generator, shuffled": {"generator": 1, "shuffle": True},
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{"generator": 1}, {}, {"shuffle": True}], ids=["own generator", "plain", "shuffled"]
)
def test_each_epoch_of_kept_workers_seeds_its_samples_otherwise(options):
    """No random stream moves between two epochs of the first two."""
    test_each_epoch_seeds_its_samples_otherwise({**options, "num_workers": 1, "persistent_workers": True})


@pytest.mark.parametrize("options", SEEDED_LOADERS.values(), ids=SEEDED_LOADERS)
def test_each_epoch_seeds_its_samples_otherwise(options):
    source = """
        for epoch in ipyrescue.loop(range(3)):
            for batch in ipyrescue.batches(loader, seed_samples=True):
                seen.append([epoch, round(batch.sum().item(), 9)])
                checkpoint()
        """

    def setup():
        torch.manual_seed(0)
        generator = {"generator": seeded(options["generator"])} if "generator" in options else {}
        loader = DataLoader(Drawn(), batch_size=2, **{**options, **generator})
        return {"ipyrescue": ipyrescue, "loader": loader}

    whole = run(source, {**setup(), "seen": [], "checkpoint": lambda: None})["seen"]
    assert len({number for _, number in whole}) == 6

    for die_at in (1, 4):
        snapshot = run_until(source, ("seen",), die_at, {**setup(), "seen": []})
        assert run_again(source, snapshot, setup())["seen"] == whole


class Drawn(Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        return torch.rand(3)


def test_who_sets_the_seed_gets_the_same_samples():
    loader = DataLoader(Drawn(), batch_size=2)

    def samples():
        torch.manual_seed(0)
        return [batch.tolist() for batch in ipyrescue.batches(loader, seed_samples=True)]

    assert samples() == samples()


def test_a_pass_that_an_older_ipyrescue_seeded_goes_on_as_it_would():
    """Its state knows of no repeated streams: the seed is that of the global stream alone."""
    torch.manual_seed(0)
    loader = DataLoader(Drawn(), batch_size=2, generator=seeded(1))
    source = source_of_batches(loader, seed_samples=True)
    next(source.start())
    state = source.state(1, complete=True)
    del state["begun"]["repeats"]

    source.go_on(state, 1)

    assert source._indices.seed == seed_of(state["begun"]["streams"]["torch"])


def test_what_was_done_is_not_read_again():
    data = Numbers()
    setup = setup_for(lambda: DataLoader(data, batch_size=4, shuffle=True))
    snapshot = run_until(TRAINING, ("seen",), 4, {**setup, "seen": []})
    data.read.clear()

    run_again(TRAINING, snapshot, setup)

    assert len(data.read) == SAMPLES - 4 * 4 + SAMPLES


@pytest.mark.parametrize("make", [*list(MAP_LOADERS.values())[:6], *list(MAP_LOADERS.values())[-5:]])
def test_batches_changes_nothing_of_a_run_that_nobody_kills(make):
    torch.manual_seed(0)
    plain = [str(batch) for _ in range(2) for batch in make(Numbers(drawing=True))]
    end = torch.get_rng_state()
    torch.manual_seed(0)

    watched = [str(batch) for _ in range(2) for batch in ipyrescue.batches(make(Numbers(drawing=True)))]

    assert len(watched) == len(plain)
    assert torch.equal(torch.get_rng_state(), end)


def test_an_order_that_cannot_be_found_again_is_refused():
    setup = setup_for(lambda: DataLoader(Numbers(), batch_size=4, sampler=WhileTraining()))
    snapshot = run_until(TRAINING, ("seen",), 3, {**setup, "seen": []})

    with pytest.raises(RescueError, match="order of BatchSampler cannot be found again"):
        run_again(TRAINING, snapshot, setup)


@pytest.mark.parametrize(
    ("other", "refusal"),
    [
        (
            lambda: DataLoader(Numbers(), batch_size=5),
            "it was over DataLoader of 23 samples of length 6; now .* length 5",
        ),
        (lambda: DataLoader(range(24), batch_size=4), "now it is over DataLoader of 24 samples"),
        (lambda: [1, 2, 3], "now it is over list of length 3"),
        (
            lambda: DataLoader(Numbers(), batch_size=4, num_workers=2, in_order=False),
            "hands out batches in no fixed order",
        ),
    ],
    ids=["batch size", "dataset", "a list", "no order"],
)
def test_another_loader_is_refused_and_can_be_put_right(other, refusal):
    setup = setup_for(lambda: DataLoader(Numbers(), batch_size=4))
    snapshot = run_until(TRAINING, ("seen",), 3, {**setup, "seen": []})
    whole = run(TRAINING, {**setup, "seen": [], "checkpoint": lambda: None})["seen"]

    with pytest.raises(RescueError, match=refusal):
        run_again(TRAINING, snapshot, setup_for(other))

    assert run_again(TRAINING, snapshot, setup)["seen"] == whole


def test_a_stream_is_read_again_and_that_is_said():
    with pytest.warns(UserWarning, match="read again and thrown away"):
        assert_goes_on_exactly(lambda: DataLoader(Stream(), batch_size=4), every=3)


def test_a_stream_that_knows_where_it_is_goes_on_by_itself():
    assert_goes_on_exactly(lambda: DataLoader(KnowingStream(), batch_size=4))


def test_a_stream_in_workers_is_the_same_again():
    with pytest.warns(UserWarning, match="read again and thrown away"):
        assert_goes_on_exactly(lambda: DataLoader(Stream(), batch_size=4, num_workers=2), every=8)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")  # torchdata asks torch for it
@pytest.mark.parametrize("workers", [0, 2])
def test_a_loader_that_knows_where_it_is_goes_on_by_itself(workers):
    import torchdata.stateful_dataloader as torchdata

    def make():
        return torchdata.StatefulDataLoader(Numbers(), batch_size=4, shuffle=True, num_workers=workers)

    assert_goes_on_exactly(make, every=2 if workers == 0 else 8)


def test_anything_else_is_a_loop():
    assert_goes_on_exactly(lambda: [torch.tensor(1), torch.tensor(2), torch.tensor(3)])


@pytest.mark.parametrize("loader", [DataLoader(Stream()), [1, 2]], ids=["stream", "list"])
def test_only_samples_of_map_style_loaders_can_be_seeded(loader):
    with pytest.raises(ValueError, match="seed_samples=True seeds the samples of a torch DataLoader"):
        ipyrescue.batches(loader, seed_samples=True)


def test_it_has_the_length_of_the_loader():
    assert len(ipyrescue.batches(DataLoader(Numbers(), batch_size=4))) == 6
    assert len(list(ipyrescue.batches(DataLoader(Stream(), batch_size=4)))) == 6


def test_batches_that_others_have_numbered_are_refused():
    with pytest.raises(RescueError, match=r"ipyrescue.batches\(loader\).enumerate\(\)"):
        ipyrescue.batches(enumerate(DataLoader(Numbers())))
