"""A warning where the store would survive and its key would not, and nowhere else."""

from pathlib import Path

import pytest

from ipyrescue.store import keeping, signing
from ipyrescue.store.keeping import Place

KEY, STORE = Path("/root/.local/share/jupyter/ipyrescue/key"), Path("/work/.ipyrescue")


@pytest.mark.parametrize(
    ("place", "warned"),
    [
        (Place(True, 1, 1, 2, "overlay", "ext4"), True),  # home on the container's layer, notebooks on a volume
        (Place(True, 1, 3, 2, "ext4", "ext4"), False),  # the key is mounted as well
        (Place(True, 1, 1, 1, "overlay", "overlay"), False),  # both go together
        (Place(False, 1, 1, 2, "ext4", "ext4"), False),  # a machine with /home on a partition of its own
        (Place(False, 1, 1, 2, "ext4", "nfs4"), True),
        (Place(False, 1, 3, 2, "nfs4", "lustre"), False),  # a cluster: both survive the node
        (Place(False, 1, 1, 2, "btrfs", "xfs"), False),
        (Place(False, 1, 1, 2, "", ""), False),  # no mountinfo: no opinion
    ],
)
def test_only_a_key_that_dies_alone_is_worth_a_word(place, warned):
    sentence = keeping.advice(place, KEY, STORE)

    assert bool(sentence) == warned
    assert not warned or {"IPYRESCUE_KEY_FILE", str(STORE)} <= {
        word for word in ("IPYRESCUE_KEY_FILE", str(STORE)) if word in sentence
    }


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        (".dockerenv", "", True),
        ("run/.containerenv", "", True),
        ("proc/1/cgroup", "0::/kubepods/besteffort/pod1\n", True),
        ("proc/1/cgroup", "0::/init.scope\n", False),
        ("etc/hostname", "", False),
    ],
)
def test_a_container_is_recognised_by_its_marks(tmp_path, path, content, expected):
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(content)

    assert keeping.in_container(tmp_path) == expected


def test_asking_about_this_machine_fails_nowhere(store_root):
    assert signing.key_survives(store_root) in (None, signing.key_survives(store_root))
