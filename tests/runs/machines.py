"""A container as its files show it, and as `docker inspect` prints it: the one of the common recipe."""

OVERLAY = "600 500 0:50 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w"
WORK = "601 600 254:1 /home/me/my\\040work /workspace rw,relatime - ext4 /dev/sda1 rw"
KEYS = "602 600 254:1 /var/lib/docker/volumes/ipyrescue-key/_data /keys rw,relatime - ext4 /dev/sda1 rw"
CACHE = "603 601 0:61 / /workspace/cache rw,relatime - tmpfs tmpfs rw"
POD = "604 600 254:1 /var/lib/kubelet/pods/1/volumes/kubernetes.io~empty-dir/w /scratch rw - ext4 /dev/sda1 rw"
STAT = "1 ({name}) S 0 1 1 {tty} 1 4194560 100 0"


def a_machine(folder, main=("bash",), *, tty=34816, mounts=(OVERLAY, WORK, KEYS, CACHE, POD), **files):
    """A folder with the files of a machine that is a Docker container."""
    texts = {
        ".dockerenv": "",
        "etc/hostname": "3f2a1b4c5d6e\n",
        "proc/1/cmdline": "".join(f"{word}\0" for word in main),
        "proc/1/stat": STAT.format(name="a ) b", tty=tty),
        "proc/self/mountinfo": "\n".join(mounts) + "\n",
        "dev/shm/here": "",
        **files,
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


ARTICLE = {
    "Id": "3f2a1b4c5d6e" + "0" * 52,
    "Created": "2026-11-21T01:02:03.000000000Z",
    "Path": "bash",
    "Args": [],
    "State": {"Status": "running", "Running": True, "Pid": 4411, "ExitCode": 0},
    "Image": "sha256:" + "a" * 64,
    "Name": "/my_trainer",
    "RestartCount": 0,
    "HostConfig": {
        "Binds": ["/home/me/work:/workspace"],
        "NetworkMode": "bridge",
        "PortBindings": {"8888/tcp": [{"HostIp": "", "HostPort": "8888"}], "53/udp": [{"HostIp": "127.0.0.1"}]},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": True,
        "IpcMode": "private",
        "ShmSize": 67108864,
        "Runtime": "runc",
        "Devices": [],
        "DeviceRequests": None,
        "Init": None,
    },
    "Mounts": [
        {
            "Type": "bind",
            "Source": "/home/me/work",
            "Destination": "/workspace",
            "Mode": "",
            "RW": True,
            "Propagation": "rprivate",
        },
        {
            "Type": "volume",
            "Name": "b" * 64,
            "Source": "/var/lib/docker/volumes/" + "b" * 64 + "/_data",
            "Destination": "/data",
            "Driver": "local",
            "Mode": "",
            "RW": True,
            "Propagation": "",
        },
    ],
    "Config": {
        "Hostname": "3f2a1b4c5d6e",
        "User": "",
        "AttachStdin": True,
        "Tty": True,
        "OpenStdin": True,
        "Env": ["PATH=/usr/bin", "NVIDIA_VISIBLE_DEVICES=all", "HF_TOKEN=hf_secret", "HOME=/root", "BARE"],
        "Cmd": ["bash"],
        "Image": "pytorch/pytorch:2.7.1-cuda12.8-cudnn9-runtime",
        "WorkingDir": "/workspace",
        "Entrypoint": None,
        "StopTimeout": 5,
    },
}
