"""What is proposed after a death; a restore that killed a kernel is not proposed again in the same form."""

import pytest

from ipyrescue.incarnations.deaths import Death, dismiss, mark_restored
from ipyrescue.incarnations.offer import diagnosed, find_offer, make_offer, on_a_gpu
from ipyrescue.manifest import Group, Storage, Stream
from ipyrescue.store.lives import Cause
from ipyrescue.store.upkeep import Attempt
from tests.incarnations.samples import KILLED, a_death, a_life, bury, here, trace
from tests.kernel.samples import NOW, iso, snapshot

DEAD, BEFORE = "b" * 16, "a" * 16


def saved(digit, incarnation=DEAD, *, device="cpu", **fields):
    storages = (Storage(0, 0, 8, "torch", "cpu"), Storage(0, 8, 8, "torch", device))
    group = Group(("model",), "data", "pickle", Stream((), 0, "raw"), (), storages, (), (), ())
    known = {"id": digit * 16, "incarnation": incarnation, "notebook": "deep/train.ipynb", "groups": (group,)}
    return snapshot(**(known | fields))


NEWEST, OLDER, OLDEST = saved("3"), saved("2"), saved("1", BEFORE)
ON_A_GPU = saved("4", device="cuda:1")


def offered(snapshots, failed=(), unrestored=(DEAD,)):
    return make_offer(a_death(), KILLED, snapshots, unrestored, {Attempt(*form) for form in failed})


# --- the choice, without a store -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("snapshots", "chosen"),
    [
        ([NEWEST, OLDER, OLDEST], NEWEST),
        ([saved("5", "c" * 16), NEWEST], NEWEST),  # Run All came first, in the new kernel
        ([saved("5", cut="interrupted"), NEWEST], NEWEST),
        ([OLDEST], OLDEST),
        ([saved("5", notebook="other.ipynb")], None),
        ([], None),
    ],
)
def test_the_newest_good_one_of_the_dead_is_proposed(snapshots, chosen):
    offer = offered(snapshots)

    assert (offer.snapshot, offer.device, offer.note) == (chosen, None, None)
    assert (offer.life, offer.cause) == (offer.death.life, KILLED)


def test_an_interrupted_one_is_named_and_not_proposed():
    torn = saved("5", cut="interrupted")

    assert offered([torn, NEWEST]).interrupted == torn
    assert (offered([torn]).interrupted, offered([torn]).snapshot) == (torn, None)
    assert offered([NEWEST, torn]).interrupted is None  # the step was finished since
    assert offered([saved("5", BEFORE, cut="interrupted"), NEWEST]).interrupted is None


@pytest.mark.parametrize(
    ("snapshots", "failed", "chosen", "device", "note"),
    [
        (
            [NEWEST, OLDER],
            [("3" * 16, None)],
            OLDER,
            None,
            "The kernel died in a restore of 33333333, so the one before is proposed.",
        ),
        (
            [ON_A_GPU, OLDER],
            [("4" * 16, None)],
            ON_A_GPU,
            "cpu",
            "The kernel died in a restore of 44444444, so its tensors are to come back on the CPU.",
        ),
        (
            [ON_A_GPU, OLDER],
            [("4" * 16, None), ("4" * 16, "cpu")],
            OLDER,
            None,
            "The kernel died in a restore of 44444444, so the one before is proposed.",
        ),
        ([ON_A_GPU, OLDER], [("4" * 16, "cpu")], ON_A_GPU, None, None),
        (
            [NEWEST, OLDER, OLDEST],
            [("3" * 16, None), ("2" * 16, None)],
            OLDEST,
            None,
            "The kernel died in a restore of 33333333 and of 22222222, so the one before is proposed.",
        ),
        (
            [NEWEST, saved("2", device="cuda:0")],
            [("3" * 16, None), ("2" * 16, None)],
            saved("2", device="cuda:0"),
            "cpu",
            "The kernel died in a restore of 33333333 and of 22222222, so its tensors are to come back on the CPU.",
        ),
        (
            [NEWEST],
            [("3" * 16, None)],
            None,
            None,
            "The kernel died in a restore of 33333333. Single names take less memory: %restore_vars NAME from=33333333",
        ),
        ([NEWEST], [("2" * 16, None)], NEWEST, None, None),  # of another one
        ([NEWEST], [("3" * 16, "cpu")], NEWEST, None, None),  # there is nothing that a device could change
    ],
)
def test_what_killed_the_kernel_is_not_proposed_again_in_the_same_form(snapshots, failed, chosen, device, note):
    offer = offered(snapshots, failed)

    assert (offer.snapshot, offer.device, offer.note) == (chosen, device, note)


FOUND = "was found damaged when it was read back, so the one before is proposed."
BOTH_FOUND = "were found damaged when they were read back, so the one before is proposed."


@pytest.mark.parametrize(
    ("snapshots", "failed", "damaged", "chosen", "note"),
    [
        ([NEWEST, OLDER], [], "3", OLDER, f"33333333 {FOUND}"),
        ([ON_A_GPU, NEWEST, OLDER], [], "43", OLDER, f"44444444 and 33333333 {BOTH_FOUND}"),
        ([NEWEST, OLDER], [], "2", NEWEST, None),
        ([NEWEST, OLDER], [], "32", NEWEST, None),  # nobody signs what is said to be damaged: an offer is made
        (
            [NEWEST, OLDER, OLDEST],
            [("3" * 16, None)],
            "32",
            OLDEST,
            f"The kernel died in a restore of 33333333. 22222222 {FOUND}",
        ),
        (
            [ON_A_GPU, OLDER],
            [("4" * 16, None)],
            "4",
            OLDER,
            f"The kernel died in a restore of 44444444. 44444444 {FOUND}",
        ),
    ],
)
def test_what_was_found_damaged_is_passed_over_if_there_is_another(snapshots, failed, damaged, chosen, note):
    tried = {Attempt(*form) for form in failed}

    offer = make_offer(a_death(), KILLED, snapshots, {DEAD}, tried, {digit * 16 for digit in damaged})

    assert (offer.snapshot, offer.device, offer.note) == (chosen, None, note)


def test_a_snapshot_is_on_a_gpu_when_any_of_its_tensors_is():
    assert on_a_gpu(ON_A_GPU)
    assert not on_a_gpu(NEWEST)
    assert not on_a_gpu(snapshot())


# --- from the records of a store -------------------------------------------------------------------------------


def died(root, digit, *, at=NOW, **fields):
    known = {"incarnation": digit * 16, "notebook": "deep/train.ipynb", "started": iso(10_000 - int(digit, 16))}
    return bury(root, a_life(**here(**(known | fields))), at=at)


def test_nothing_died_nothing_is_offered(store_root):
    assert find_offer(store_root, "deep/train.ipynb", []) is None
    died(store_root, "1", ended="shutdown")
    assert find_offer(store_root, "deep/train.ipynb", [NEWEST]) is None


def test_an_offer_stands_until_it_is_answered(store_root):
    first, second = died(store_root, "a"), died(store_root, "b")

    offer = find_offer(store_root, "deep/train.ipynb", [NEWEST, OLDEST])
    assert (offer.life, offer.snapshot, offer.renamed) == (second, NEWEST, False)

    dismiss(store_root, second)
    offer = find_offer(store_root, "deep/train.ipynb", [NEWEST, OLDEST])
    assert (offer.life, offer.snapshot) == (first, OLDEST)

    mark_restored(store_root, first, OLDEST.id)
    assert find_offer(store_root, "deep/train.ipynb", [NEWEST, OLDEST]) is None


def test_a_crash_loop_ends_with_a_sentence(store_root):
    """A kernel dies in a restore, the next one in the next form, until nothing is left to propose."""
    snapshots = [saved("4", BEFORE, device="cuda:0"), saved("2", BEFORE)]
    died(store_root, "a")
    forms = []
    for digit in "bcde":
        offer = find_offer(store_root, "deep/train.ipynb", snapshots)
        if offer.snapshot is None:
            break
        forms.append((offer.snapshot.id[0], offer.device))
        died(store_root, digit, restoring=offer.snapshot.id, restoring_device=offer.device)

    assert forms == [("4", None), ("4", "cpu"), ("2", None)]
    assert offer.note == (
        "The kernel died in a restore of 44444444 and of 22222222. "
        "Single names take less memory: %restore_vars NAME from=44444444"
    )


@pytest.mark.parametrize("fields", [{"ended": "exit"}, {"host": "lab", "at": 1e12}])
def test_a_restore_that_did_not_kill_counts_nothing(store_root, fields):
    """A kernel that ended cleanly, and one that may well be restoring just now."""
    died(store_root, "b")
    died(store_root, "c", restoring=NEWEST.id, **fields)

    offer = find_offer(store_root, "deep/train.ipynb", [NEWEST, OLDER])

    assert (offer.snapshot, offer.note) == (NEWEST, None)


def test_a_death_under_a_former_name_is_offered_by_its_id(store_root):
    died(store_root, "b", notebook="untitled.ipynb")
    theirs = saved("3", notebook="untitled.ipynb")

    offer = find_offer(store_root, "deep/train.ipynb", [theirs], former={"untitled.ipynb"})

    assert (offer.snapshot, offer.renamed) == (theirs, True)


def test_a_cause_on_record_is_taken_and_a_fresh_one_found(store_root):
    """What was diagnosed while the traces were fresh is better than what is left of them."""
    known = died(store_root, "b", cause=KILLED)
    fresh = died(store_root, "c")
    for life in (known, fresh):
        trace(store_root, life, "SIGTERM", "Current thread\n")

    assert diagnosed(store_root, known) == KILLED
    assert diagnosed(store_root, fresh).kind == "terminated"
    assert find_offer(store_root, "deep/train.ipynb", []).cause.kind == "terminated"
    assert find_offer(store_root, "deep/train.ipynb", [], incarnation="c" * 16).cause == KILLED


def test_an_offer_knows_its_death():
    death = Death(a_life(), NOW)

    offer = make_offer(death, Cause("unknown", "died", "cause unknown"), [], (), ())

    assert (offer.death, offer.snapshot, offer.interrupted, offer.note) == (death, None, None, None)
