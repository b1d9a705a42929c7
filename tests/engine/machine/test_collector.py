import gc
import threading

from engine.machine.collector import THRESHOLDS, rare_collections


def test_thresholds_are_those_from_before_when_the_last_block_is_left() -> None:
    before = gc.get_threshold()
    inside, may_leave = threading.Event(), threading.Event()

    def other() -> None:
        with rare_collections():
            inside.set()
            may_leave.wait()

    with rare_collections():
        assert gc.get_threshold() == THRESHOLDS
        thread = threading.Thread(target=other)
        thread.start()
        inside.wait()
    assert gc.get_threshold() == THRESHOLDS  # another run of this process is still in its block
    may_leave.set()
    thread.join()
    assert gc.get_threshold() == before
