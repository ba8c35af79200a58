"""Real signals to real processes: what is saved, and that they end as they would have without us."""

import signal
import subprocess
import sys
import textwrap
import threading

import pytest

from ipyrescue.capture.signals import Farewell, is_caught

PROLOGUE = """
    import ctypes, faulthandler, multiprocessing, os, signal, sys, threading, time
    from ipyrescue.capture.signals import Farewell

    def say(*words):
        os.write(1, (" ".join(map(str, words)) + "\\n").encode())

    def farewell(save=lambda name: say("saved", name), **options):
        return Farewell(save, **options)

    def hang(how):
        say("saving")
        if how == "in Python":
            while True: pass
        ctypes.CDLL(None).sleep(60)
"""
FOREVER = "\nwhile True: time.sleep(0.01)\n"


class Process:
    """A process that runs *source*; it says words, one a line."""

    def __init__(self, source, **options):
        code = textwrap.dedent(PROLOGUE) + textwrap.dedent(source)
        self.popen = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, **options)

    def wait_for(self, line):
        said = []
        for text in self.popen.stdout:
            said.append(text.rstrip("\n"))
            if said[-1] == line:
                return said
        raise AssertionError(f"it ended with {self.popen.wait()} and said {said}")

    def send(self, *names):
        for name in names:
            self.popen.send_signal(signal.Signals[name])

    def end(self):
        """Its last words and its exit status."""
        said, _ = self.popen.communicate(timeout=60)
        return said.splitlines(), self.popen.returncode


@pytest.fixture
def start():
    made = []

    def begin(source, **options):
        made.append(Process(source, **options))
        return made[-1]

    yield begin
    for process in made:
        process.popen.kill()
        process.popen.communicate()


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", -15), ("SIGHUP", -1)])
def test_a_signal_saves_once_and_ends_the_process_as_ever(start, name, status):
    process = start("farewell().install(); say('ready')" + FOREVER)
    process.wait_for("ready")

    process.send(name)

    assert process.end() == ([f"saved {name}"], status)


@pytest.mark.parametrize("error", ["ValueError", "KeyboardInterrupt", "SystemExit(3)", "GeneratorExit"])
def test_a_save_that_raises_ends_the_process_all_the_same(start, error):
    source = f"def save(name): say('saving'); raise {error}\nfarewell(save).install(); say('ready')"
    process = start(source + FOREVER)
    process.wait_for("ready")

    process.send("SIGTERM")

    assert process.end() == (["saving"], -15)


def test_what_nohup_ignores_stays_ignored(start):
    process = start("say(*farewell().install()); say('ready')" + FOREVER, preexec_fn=_ignore_hang_ups)
    assert process.wait_for("ready") == ["SIGTERM", "ready"]

    process.send("SIGHUP", "SIGTERM")

    assert process.end() == (["saved SIGTERM"], -15)


def _ignore_hang_ups():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def test_the_handler_that_was_there_is_called_after_the_save_and_may_live_on(start):
    """A training loop that ends its epoch and then itself hears each signal, and each time there is a snapshot."""
    source = "signal.signal(15, lambda number, frame: say('theirs', number)); farewell().install(); say('ready')"
    process = start(source + FOREVER)
    process.wait_for("ready")

    for _ in range(2):
        process.send("SIGTERM")
        assert process.wait_for("theirs 15") == ["saved SIGTERM", "theirs 15"]

    process.send("SIGHUP")
    assert process.end() == (["saved SIGHUP"], -1)


def test_what_the_handler_that_was_there_raises_arrives(start):
    process = start("signal.signal(15, lambda *_: sys.exit(7)); farewell().install(); say('ready')" + FOREVER)
    process.wait_for("ready")

    process.send("SIGTERM")

    assert process.end() == (["saved SIGTERM"], 7)


@pytest.mark.parametrize("how", ["in Python", "in C"])
@pytest.mark.parametrize("second", ["SIGTERM", "SIGHUP"])
def test_a_second_signal_ends_it_at_once_in_the_midst_of_a_save(start, how, second):
    process = start(f"farewell(lambda name: hang({how!r}), grace_seconds=60).install(); say('ready')" + FOREVER)
    process.wait_for("ready")
    process.send("SIGTERM")
    process.wait_for("saving")

    process.send(second)

    assert process.end() == ([], -signal.Signals[second])


@pytest.mark.parametrize("how", ["in Python", "in C"])
@pytest.mark.parametrize("theirs", ["", "signal.signal(15, lambda *_: say('theirs'))"])
def test_a_save_that_hangs_is_ended_after_the_grace(start, how, theirs):
    source = f"{theirs}\nfarewell(lambda name: hang({how!r}), grace_seconds=0.6).install(); say('ready')"
    process = start(source + FOREVER)
    process.wait_for("ready")

    process.send("SIGTERM")

    assert process.end() == (["saving"], -15)


def test_children_die_of_signals_as_if_we_were_not_there(start):
    """A DataLoader ends its workers by SIGTERM, and a pool does so the moment after it forked them."""
    source = """
        heard = farewell()
        heard.install()
        context = multiprocessing.get_context("fork")
        workers = [context.Process(target=time.sleep, args=(60,)) for _ in range(20)]
        for worker in workers:
            worker.start()
            worker.terminate()
        for worker in workers:
            worker.join()
        say({worker.exitcode for worker in workers})
        before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        say(before, len(heard.signals))
        child = os.fork()
        if child == 0:
            say(signal.getsignal(15).name, signal.pthread_sigmask(signal.SIG_BLOCK, ()), heard.signals)
            os.kill(os.getpid(), 1)
        say(os.waitpid(child, 0)[1])
        say(subprocess.run(["sleep", "60"], preexec_fn=lambda: os.kill(os.getpid(), 15)).returncode)
    """
    process = start("import subprocess\n" + textwrap.dedent(source))

    assert process.end() == (["{-15}", "set() 2", "SIG_DFL set() ()", "1", "-15"], 0)


def test_uninstalled_it_leaves_nothing_behind(start):
    source = """
        mine = lambda number, frame: None
        signal.signal(1, mine)
        heard = farewell()
        say(*heard.install())
        heard.uninstall()
        say(signal.getsignal(15).name, signal.getsignal(1) is mine, heard.signals, threading.active_count())
        heard.install()
        signal.signal(15, mine)
        heard.uninstall()
        say(signal.getsignal(15) is mine)
    """
    assert start(source).end() == (["SIGTERM SIGHUP", "SIG_DFL True () 1", "True"], 0)


def test_a_handler_that_was_put_over_ours_may_still_call_it_when_we_are_gone(start):
    source = """
        heard = farewell()
        heard.install()
        ours = signal.getsignal(15)
        signal.signal(15, lambda number, frame: (say("theirs"), ours(number, frame)))
        heard.uninstall()
        say("ready")
    """
    process = start(textwrap.dedent(source) + FOREVER)
    process.wait_for("ready")

    process.send("SIGTERM")

    assert process.end() == (["theirs"], -15)


def test_a_handler_that_python_does_not_know_is_left_alone(start):
    source = "faulthandler.register(15, sys.stdout, chain=True); say(*farewell().install()); say('ready')"
    process = start(source + FOREVER)
    assert process.wait_for("ready") == ["SIGHUP", "ready"]

    process.send("SIGTERM")

    said, status = process.end()
    assert ("most recent call first" in said[0], status) == (True, -15)
    assert not any("saved" in line for line in said)


def test_beside_the_main_thread_it_hears_nothing():
    farewell, heard = Farewell(print), []

    thread = threading.Thread(target=lambda: heard.append(farewell.install()))
    thread.start()
    thread.join()

    assert (heard, farewell.signals, signal.getsignal(signal.SIGTERM)) == ([()], (), signal.SIG_DFL)
    assert not is_caught(signal.SIGTERM) or sys.platform != "linux"


def test_a_process_that_forks_all_the_time_hears_each_signal(start):
    """What is held back around fork(2) arrives after it."""
    source = """
        signal.signal(15, lambda *_: say("theirs"))
        farewell().install()
        say("ready")
        while True:
            child = os.fork()
            if child == 0:
                os._exit(0)
            os.waitpid(child, 0)
    """
    process = start(source)
    process.wait_for("ready")

    for _ in range(30):
        process.send("SIGTERM")
        assert process.wait_for("theirs") == ["saved SIGTERM", "theirs"]


def test_interrupts_do_not_end_the_last_save(start):
    source = "def save(name): say('saving'); time.sleep(0.3); say('saved')\nfarewell(save).install(); say('ready')"
    process = start(source + FOREVER)
    process.wait_for("ready")
    process.send("SIGTERM")
    process.wait_for("saving")

    process.send("SIGINT", "SIGINT")

    assert process.end() == (["saved"], -15)
