"""Which facts are worth a word, and the command lines that mend them."""

import dataclasses
import shlex

import pytest

from ipyrescue.places import command_lines
from ipyrescue.places.containers import Facts, Mount
from ipyrescue.places.examining import last_snapshot
from ipyrescue.places.findings import Last, Place, judge
from ipyrescue.store import layout
from ipyrescue.store.filesystems import FileSystem
from ipyrescue.store.probe import Answer, Probed

WORK, KEYS = Mount("/workspace", "ext4", "/home/me/work"), Mount("/keys", "ext4", "ipyrescue-key")
GOOD = Facts(
    kind="docker",
    name="my_trainer",
    image="pytorch/pytorch",
    main=("docker-init", "--", "python", "/opt/ipyrescue/entrypoint.py", "jupyter"),
    reaps=True,
    removed=False,
    stop_seconds=60.0,
    shm_bytes=8 << 30,
    has_gpu=True,
    working_folder="/workspace",
    mounts=(WORK, KEYS),
    inspected=True,
)
PLACE = Place(
    "/workspace",
    "/workspace/.ipyrescue",
    "/keys/key",
    "/workspace/train.ipynb",
    free_bytes=500_000_000_000,
    last=Last(2_000_000_000, 4.0),
)
MACHINE = Facts(mounts=(Mount("/", "ext4"), Mount("/home", "ext4")), reaps=True, has_gpu=True)
AT_HOME = dataclasses.replace(
    PLACE, folder="/home/me", store="/home/me/.ipyrescue", key="/home/me/key", notebook="/home/me/train.ipynb"
)
LONG = Last(9_000_000_000, 14.0)


def kinds(facts, place, **changes):
    return {finding.kind: finding.level for finding in judge(facts, dataclasses.replace(place, **changes))}


def test_where_nothing_is_wrong_nothing_is_said():
    assert kinds(GOOD, PLACE) == {}
    assert kinds(MACHINE, AT_HOME) == {}


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"main": ("bash",), "terminal": True}, {"main_is_shell": "warning", "stop_unheard": "note"}),
        ({"main": ("bash",), "terminal": True, "attached": False}, {"main_is_shell": "note", "stop_unheard": "note"}),
        ({"main": ("bash",), "terminal": False}, {"stop_unheard": "note"}),
        ({"main": ("sleep", "infinity"), "reaps": False}, {"no_init": "note", "stop_unheard": "note"}),
        ({"main": ("docker-init", "--", "ipyrescue", "run", "train.ipynb")}, {}),
        ({"removed": True}, {}),  # all that matters is on volumes
        ({"removed": True, "mounts": (WORK,)}, {"removed": "warning", "key_not_kept": "warning"}),
        ({"mounts": (WORK,)}, {"key_not_kept": "warning"}),
        ({"mounts": (KEYS,)}, {"store_not_kept": "warning", "notebook_not_kept": "warning"}),
        ({"mounts": ()}, {"store_not_kept": "warning", "notebook_not_kept": "warning"}),
        (
            {"mounts": (Mount("/workspace", "tmpfs", kept=False), KEYS)},
            {"store_not_kept": "warning", "notebook_not_kept": "warning"},
        ),
        ({"stop_seconds": 3.0}, {"stop_too_short": "warning"}),
        ({"stop_seconds": None}, {}),
        ({"has_gpu": False}, {}),
        ({"has_gpu": False, "asks_gpu": "driver"}, {"no_gpu": "warning"}),
        ({"has_gpu": False, "asks_gpu": "image"}, {"no_gpu": "note"}),
        ({"shm_bytes": 64 << 20}, {"small_shm": "warning"}),
        ({"shm_bytes": None}, {}),
        ({"mounts": (dataclasses.replace(WORK, file_system="nfs4"), KEYS)}, {"store_on_network": "note"}),
    ],
)
def test_what_is_wrong_with_a_container(changes, found):
    assert kinds(dataclasses.replace(GOOD, **changes), PLACE) == found


@pytest.mark.parametrize(
    ("facts", "found"),
    [
        (GOOD, {}),
        (dataclasses.replace(GOOD, stop_seconds=10.0), {"stop_too_short": "warning"}),
        # From the inside Docker's default is all that is known.
        (dataclasses.replace(GOOD, stop_seconds=None, inspected=False), {"stop_too_short": "warning"}),
    ],
)
def test_a_stop_leaves_time_for_a_snapshot_as_long_as_the_last_one(facts, found):
    assert kinds(facts, PLACE, last=LONG) == found


@pytest.mark.parametrize(
    ("facts", "place", "found"),
    [
        ({}, {"at_logout": "session"}, {"killed_at_logout": "warning"}),
        ({}, {"at_logout": "manager"}, {"killed_at_logout": "warning"}),
        ({}, {"key_alone": "The key is elsewhere."}, {"key_not_kept": "warning"}),
        ({}, {"free_bytes": 900_000_000}, {"little_disk": "warning"}),
        ({}, {"free_bytes": 3_000_000_000}, {"little_disk": "warning"}),  # not two of the last snapshot
        ({}, {"free_bytes": 3_000_000_000, "last": None}, {}),
        (
            {},
            {"free_bytes": 3_000_000_000, "last": Last(1, 1.0, 2_000_000_000)},
            {"little_disk": "warning"},
        ),  # nor of any
        ({}, {"free_bytes": None}, {}),
        ({"mounts": (Mount("/home", "tmpfs", kept=False),)}, {}, {"store_in_memory": "warning"}),
        ({"mounts": (Mount("/home", "nfs4"),)}, {}, {"store_on_network": "note"}),
        ({"main": ("bash",), "terminal": True, "shm_bytes": 1}, {}, {}),  # all that is Docker's matters in Docker only
        ({"kind": "lxc", "main": ("bash",), "terminal": True}, {}, {}),  # a whole machine, with a disk of its own
    ],
)
def test_what_is_wrong_with_a_machine(facts, place, found):
    assert kinds(dataclasses.replace(MACHINE, **facts), AT_HOME, **place) == found


def test_every_finding_says_what_happens_and_what_to_type():
    worst = dataclasses.replace(
        GOOD,
        main=("/opt/start.sh", "bash"),
        terminal=True,
        reaps=False,
        removed=True,
        mounts=(Mount("/workspace", "nfs4", "w"),),
        has_gpu=False,
        asks_gpu="driver",
        shm_bytes=1,
        stop_seconds=1.0,
    )
    found = judge(worst, dataclasses.replace(PLACE, free_bytes=1))

    assert len(found) == 10
    assert [finding.level for finding in found] == sorted((f.level for f in found), reverse=True)
    for finding in found:
        assert finding.text.endswith(".")
        assert "  " not in finding.text
        assert finding.type
        assert not finding.type.endswith(".")
        assert f"{finding.text}{finding.type}".isascii()


# --- the command lines ---------------------------------------------------------------------------------------------


def words(lines):
    """The `run` line, as a shell takes it apart."""
    whole = lines.replace(" \\\n  ", " ").splitlines()
    return shlex.split(next(line for line in whole if " run -d " in line))


def after(found, option):
    return [found[at + 1] for at, word in enumerate(found) if word == option]


def test_the_articles_container_is_started_without_its_slips():
    """The same name in exec, a main process that stays, -w, volumes for store and key, no --rm."""
    facts = dataclasses.replace(
        GOOD, main=("bash",), terminal=True, removed=True, mounts=(WORK,), ports=("8888:8888",), shm_bytes=64 << 20
    )
    place = dataclasses.replace(PLACE, key="/root/.local/share/jupyter/ipyrescue/key", last=LONG)

    lines = command_lines.again(facts, place)

    assert lines == (
        "docker cp my_trainer:/root/.local/share/jupyter/ipyrescue/key ipyrescue-key\n"
        "docker stop my_trainer\n"
        "docker run -d --name my_trainer --init --stop-timeout 60 --shm-size 8g \\\n"
        "  --gpus all \\\n"
        "  -p 8888:8888 \\\n"
        "  -v /home/me/work:/workspace \\\n"
        "  -v ipyrescue-key:/keys -e IPYRESCUE_KEY_FILE=/keys/key \\\n"
        "  -w /workspace --entrypoint sleep pytorch/pytorch infinity\n"
        "docker cp ipyrescue-key my_trainer:/keys/key\n"
        "docker exec my_trainer ipyrescue run train.ipynb --detach"
    )
    mended = dataclasses.replace(
        facts, main=("docker-init", "--", "sleep", "infinity"), terminal=False, removed=False, shm_bytes=8 << 30
    )
    mended = dataclasses.replace(mended, mounts=(WORK, KEYS))
    assert kinds(mended, dataclasses.replace(place, key="/keys/key")) == {"stop_unheard": "note"}


def test_from_the_inside_the_image_is_asked_of_docker():
    facts = dataclasses.replace(
        GOOD, name="3f2a1b4c5d6e", image=None, main=("bash",), mounts=(), has_gpu=False, inspected=False, removed=None
    )
    place = dataclasses.replace(PLACE, folder="/root", store="/root/.ipyrescue", notebook="/root/a b.ipynb")

    lines = command_lines.again(facts, place)

    assert lines.startswith("image=$(docker inspect --format '{{.Config.Image}}' 3f2a1b4c5d6e)\n")
    assert "docker cp 3f2a1b4c5d6e:'/root/a b.ipynb' .\n" in lines
    assert "docker cp 3f2a1b4c5d6e:/root/.ipyrescue .\n" in lines
    assert "docker stop 3f2a1b4c5d6e && docker rm 3f2a1b4c5d6e\n" in lines
    found = words(lines)
    assert after(found, "-v") == ["$PWD:/workspace", "ipyrescue-key:/keys"]
    assert (after(found, "--name"), after(found, "-w")) == (["trainer"], ["/workspace"])
    assert "--gpus" not in found
    assert lines.endswith("docker exec trainer ipyrescue run 'a b.ipynb' --detach")


def test_what_the_container_does_and_has_stays():
    facts = dataclasses.replace(GOOD, kind="podman", name="it's me", mounts=(*GOOD.mounts, Mount("/data", "", "/d d")))
    place = dataclasses.replace(PLACE, store="/workspace/deep/.ipyrescue", last=Last(1, 100.0))

    found = words(command_lines.again(dataclasses.replace(facts, name="x"), place))

    assert found[:2] == ["podman", "run"]
    assert after(found, "-v") == ["/home/me/work:/workspace", "ipyrescue-key:/keys", "/d d:/data"]
    assert after(found, "-e") == ["IPYRESCUE_KEY_FILE=/keys/key"]
    assert after(found, "--stop-timeout") == ["300"]
    assert after(found, "--device") == ["nvidia.com/gpu=all"]
    assert after(found, "--entrypoint") == ["python"]
    assert found[-3:] == ["pytorch/pytorch", "/opt/ipyrescue/entrypoint.py", "jupyter"]


@pytest.mark.parametrize("kind", [None, "kubernetes", "lxc", "apptainer"])
def test_where_docker_does_not_run_no_docker_lines_are_told(kind):
    assert command_lines.again(dataclasses.replace(GOOD, kind=kind), PLACE) is None


# --- how long a snapshot takes -------------------------------------------------------------------------------------


def test_without_a_store_nothing_is_known_of_snapshots(tmp_path):
    assert last_snapshot(tmp_path / "none") is None
    layout.create(tmp_path / "empty")
    assert last_snapshot(tmp_path / "empty") is None


@pytest.mark.parametrize(
    ("system", "found"),
    [
        (None, {}),
        (FileSystem("ext4"), {}),
        (FileSystem("nfs4"), {"store_on_network": "note"}),
        (FileSystem("virtiofs"), {"store_on_host": "note"}),
        (FileSystem("fuse.gcsfuse"), {"store_in_bucket": "warning"}),
        (FileSystem("fuse", "mountpoint-s3"), {"store_in_bucket": "warning"}),
        (FileSystem("overlay"), {"store_on_overlay": "note"}),
    ],
)
def test_what_is_known_of_the_kind_of_file_system_is_said(system, found):
    assert kinds(MACHINE, AT_HOME, file_system=system) == found


def test_in_a_container_its_own_layer_is_said_once():
    there = dataclasses.replace(GOOD, mounts=(KEYS,))

    assert "store_on_overlay" not in kinds(there, PLACE, file_system=FileSystem("overlay"))


LACKS = Answer(False, "Function not implemented")


@pytest.mark.parametrize(
    ("probed", "found"),
    [
        (Probed({"link": Answer(True)}), {}),
        (Probed({"link": LACKS, "holes": LACKS}), {}),  # there is another way that is as good
        (Probed({"create exclusively": LACKS}), {"lacks_create_exclusively": "warning"}),
        (Probed({"write, fsync, read back": LACKS}), {"lacks_write_fsync_read_back": "warning"}),
        (Probed({"rename over a file": LACKS}), {"lacks_rename_over_a_file": "warning"}),
        (Probed({"fsync of a folder": LACKS}), {"lacks_fsync_of_a_folder": "note"}),
        (Probed({"locks between processes": LACKS}), {"lacks_locks_between_processes": "warning"}),
        (Probed({}, failure="Read-only file system"), {"store_not_writable": "warning"}),
        (Probed({}, clock_ahead_seconds=1.0), {}),
        (Probed({}, clock_ahead_seconds=-3.0), {"clock_skew": "note"}),
        (Probed({}, clock_ahead_seconds=3600.0), {"clock_skew": "warning"}),
        (Probed({}, free_files=100_000), {}),
        (Probed({}, free_files=12), {"few_files": "warning"}),
    ],
)
def test_what_came_of_trying_the_file_system_out_is_said(probed, found):
    assert kinds(MACHINE, AT_HOME, probed=probed) == found
