"""Large arrays of objects behave like ordinary arrays, and a thread of its own frees their objects."""

import gc
import threading

import numpy as np
import pytest

from serving.protocol.objects import FREED_AT_ONCE, empty

OBJECTS = np.dtype(object)
LARGE = 3 * FREED_AT_ONCE + 5


class Noting:
    """Records the thread in which its last element is freed."""

    def __init__(self) -> None:
        self.ended = threading.Event()
        self.thread = ""

    def element(self) -> object:
        noting = self

        class Element:
            def __del__(self) -> None:
                noting.thread = threading.current_thread().name
                noting.ended.set()

        return Element()


@pytest.mark.parametrize("count", [0, 1, FREED_AT_ONCE, FREED_AT_ONCE + 1, LARGE])
def test_an_empty_array_of_objects_is_as_numpys(count: int) -> None:
    array = empty(count, OBJECTS)
    assert type(array) is np.ndarray
    assert (array.dtype, array.shape) == (OBJECTS, (count,))
    assert array.flags.writeable
    assert array.flags.c_contiguous
    assert array.tolist() == np.empty(count, object).tolist()
    array[:] = range(count)
    for same in (array, array.copy(), np.concatenate([array]), array.reshape(1, -1)[0], array.ravel()):
        assert same.tolist() == list(range(count))


def test_an_array_of_numbers_is_numpys() -> None:
    assert empty(LARGE, np.dtype(np.float32)).base is None


@pytest.mark.parametrize("place", [0, FREED_AT_ONCE, LARGE - 1])
def test_the_objects_of_a_large_array_end_in_another_thread(place: int) -> None:
    noting = Noting()
    array = empty(LARGE, OBJECTS)
    array[place] = noting.element()
    view = array.reshape(1, LARGE, 1)[:, place:]
    del array
    assert not noting.ended.is_set()
    assert view[0, 0, 0] is not None
    del view
    assert noting.ended.wait(60)
    assert noting.thread == "letting_go"


def test_the_objects_of_a_small_array_end_at_once() -> None:
    noting = Noting()
    array = empty(FREED_AT_ONCE, OBJECTS)
    array[7] = noting.element()
    del array
    assert noting.ended.is_set()
    assert noting.thread == threading.current_thread().name


def test_an_array_in_a_cycle_is_let_go_of_too() -> None:
    noting = Noting()
    array = empty(LARGE, OBJECTS)
    array[0], array[1] = noting.element(), [array]
    array[1].append(array[1])
    holder: list = [array]
    holder.append(holder)
    array[1] = None
    del array, holder
    gc.collect()
    assert noting.ended.wait(60)
