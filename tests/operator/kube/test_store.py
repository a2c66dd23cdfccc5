"""The store: news from watches, lists and our own writes come in any order; the newest counts."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from dtjob_operator.kube.store import Entry, Store, Stores
from dtjob_operator.terms.kinds import JOB_UID_LABEL, POD, Json


def obj(version: int, name: str = "a", uid: str = "u", **content: object) -> Json:
    metadata = {
        "namespace": "ns",
        "name": name,
        "resourceVersion": str(version),
        "labels": {JOB_UID_LABEL: uid},
    }
    return {"metadata": metadata, **content}


def test_older_news_does_not_replace_newer() -> None:
    store = Store()
    assert store.put(obj(10, spec="new"))
    assert not store.put(obj(9, spec="old"))
    assert not store.put(obj(10, spec="the same"))
    assert store.get("ns", "a") == obj(10, spec="new")


def test_versions_are_numbers_not_text() -> None:
    store = Store()
    store.put(obj(9, spec="old"))
    assert store.put(obj(10, spec="new"))
    assert store.get("ns", "a") == obj(10, spec="new")


def test_a_new_version_of_the_same_is_held_and_is_no_news() -> None:
    """A kubelet's heartbeat and what is not held make many; each would be a look at the job."""
    store = Store()
    assert store.put(obj(1, status={"phase": "Running"}))
    assert not store.put(obj(2, status={"phase": "Running"}))
    assert store.get("ns", "a") == obj(2, status={"phase": "Running"})
    listed = [Entry.of(obj(3, status={"phase": "Running"}))]
    assert list(store.replace(listed, version=3, asked_at=2)) == []
    assert store.put(obj(4, status={"phase": "Failed"}))


def test_a_ledger_that_has_its_outcome_is_packed_and_comes_out_as_it_was() -> None:
    """Ledgers stay for ever: 30,000 of them took 590 MiB."""
    store = Store()
    running = obj(1, kind="PrivacyLedger", status={"charged": 10, "segments": [{"draws": 10}] * 9})
    ended = running | {"status": running["status"] | {"outcome": {"state": "Succeeded"}}}
    for number in range(9):
        store.put(ended | obj(1, f"ledger-{number}"))
    assert store.put(running)
    assert store.get("ns", "a") is running
    assert store.put(ended | obj(2))
    for found in (store.get("ns", "a"), store.of_job("ns", "u")[0]):
        assert found == ended | obj(2)
    packed = [store._entries["ns", f"ledger-{number}"].content for number in range(9)]
    assert all(isinstance(each, bytes) and len(each) < 300 for each in packed)
    assert not store.put(ended | obj(3)), "no news"
    assert {each["metadata"]["resourceVersion"] for each in store} == {"1", "3"}


def test_an_answer_that_arrives_after_the_deletion_brings_nothing_back() -> None:
    store = Store()
    store.put(obj(1))
    assert store.remove(obj(3))
    assert not store.put(obj(2))
    assert store.get("ns", "a") is None
    assert store.put(obj(4))


def test_a_late_deletion_of_an_earlier_object_does_not_remove_the_later_one() -> None:
    store = Store()
    store.put(obj(5))
    assert not store.remove(obj(3))
    assert store.get("ns", "a") == obj(5)


def test_objects_are_found_by_job() -> None:
    store = Store()
    for name in ("b", "a"):
        store.put(obj(1, name))
    store.put(obj(1, "c", uid="other"))
    assert [each["metadata"]["name"] for each in store.of_job("ns", "u")] == ["a", "b"]
    store.put(obj(2, "a", uid="other"))
    assert [each["metadata"]["name"] for each in store.of_job("ns", "u")] == ["b"]
    elsewhere = obj(2, "b")
    elsewhere["metadata"]["namespace"] = "elsewhere"
    store.put(elsewhere)
    assert [each["metadata"]["name"] for each in store.of_job("ns", "u")] == ["b"]
    store.remove(obj(3, "b"))
    assert store.of_job("ns", "u") == ()


def test_a_list_tells_what_vanished_and_keeps_what_is_newer_than_it() -> None:
    store = Store()
    for version, name in ((1, "gone"), (2, "same"), (3, "changed"), (9, "newer")):
        store.put(obj(version, name))
    listed = [obj(2, "same"), obj(5, "changed", spec="new"), obj(4, "added")]
    changed = store.replace(map(Entry.of, listed), version=6, asked_at=5)
    assert {each["metadata"]["name"] for each in changed} == {"gone", "changed", "added"}
    names = {each["metadata"]["name"] for each in store}
    assert names == {"same", "changed", "added", "newer"}


def test_a_list_after_a_restore_of_etcd_is_believed_whole() -> None:
    """Resource versions went back; what was known before has never happened."""
    store = Store()
    for version, name in ((901, "ghost"), (902, "same"), (903, "deleted")):
        store.put(obj(version, name))
    store.remove(obj(904, "deleted"))
    listed = [obj(402, "same", spec="older"), obj(403, "deleted")]
    changed = store.replace(map(Entry.of, listed), version=500, asked_at=store.newest)
    assert {each["metadata"]["name"] for each in changed} == {"ghost", "same", "deleted"}
    assert list(store) == listed
    assert store.newest == 500
    assert store.put(obj(501, "same", spec="newer"))


def test_a_list_that_was_overtaken_by_an_answer_is_no_restore() -> None:
    store = Store()
    store.put(obj(5, "same"))
    asked_at = store.newest
    store.put(obj(9, "made meanwhile"))
    listed = [Entry.of(obj(5, "same"))]
    assert list(store.replace(listed, version=8, asked_at=asked_at)) == []
    assert store.get("ns", "made meanwhile") is not None


def test_deletions_are_remembered_for_a_bookmark_and_no_longer() -> None:
    store = Store()
    store.put(obj(1))
    store.remove(obj(3))
    store.bookmark(10)
    assert not store.put(obj(2))
    store.bookmark(20)
    assert not store._removed
    store.put(obj(21))
    store.remove(obj(22))
    store.bookmark(30)
    assert store._removed


@given(order=st.permutations(range(6)), data=st.data())
def test_any_order_of_a_history_ends_in_its_last_state(
    order: list[int], data: st.DataObject
) -> None:
    """Puts and removals of one object in any order, some told twice."""
    alive = data.draw(st.lists(st.booleans(), min_size=6, max_size=6))
    history = [(alive[step], obj(step + 1)) for step in range(6)]
    repeated = data.draw(st.lists(st.sampled_from(order), max_size=4))
    store = Store()
    for step in itertools.chain(order, repeated):
        exists, told = history[step]
        (store.put if exists else store.remove)(told)
    last_exists, last = history[-1]
    assert store.get("ns", "a") == (last if last_exists else None)


def in_namespace(namespace: str, version: int) -> Json:
    found = obj(version) | {"apiVersion": "v1", "kind": "Pod"}
    found["metadata"]["namespace"] = namespace
    return found


def test_what_is_listed_in_one_namespace_says_nothing_of_another() -> None:
    stores = Stores(["red", "blue"])
    parts = dict(stores.parts(POD))
    assert set(parts) == {"red", "blue"}
    stores.note(in_namespace("red", 3))
    stores.note(in_namespace("blue", 4))
    red = parts["red"]
    assert list(red.replace([], version=9, asked_at=red.newest)) == [in_namespace("red", 3)]
    assert [each["metadata"]["namespace"] for each in stores[POD]] == ["blue"]
    assert (len(stores[POD]), stores[POD].get("red", "a")) == (1, None)
    assert stores[POD].of_job("blue", "u") == (in_namespace("blue", 4),)
    assert stores[POD].remove(in_namespace("blue", 5))
    assert len(stores[POD]) == 0


def test_a_restore_is_noticed_in_each_namespace() -> None:
    """Though another has been listed anew since, at a version that is as low."""
    stores = Stores(["red", "blue"])
    for namespace in ("red", "blue"):
        stores.note(in_namespace(namespace, 900))
    for _, part in stores.parts(POD):
        assert len(list(part.replace([], version=400, asked_at=part.newest))) == 1
    assert len(stores[POD]) == 0


def test_all_namespaces_are_one_part() -> None:
    stores = Stores()
    ((namespace, whole),) = stores.parts(POD)
    assert namespace is None
    assert whole is stores[POD]


def test_a_list_of_a_restored_past_replaces_all_also_once_its_version_has_caught_up() -> None:
    """Other kinds move the version on, while nothing has been listed yet."""
    store = Store()
    store.put(obj(800, "same"))
    store.put(obj(990, status="Running"))
    store.put(obj(991, "lost"))
    before = obj(850, status="Starting")
    listed = [Entry.of(before), Entry.of(obj(800, "same"))]
    changed = list(store.replace(listed, version=1100, asked_at=store.newest))
    assert store.restores == 1
    assert store.get("ns", "a") == before
    assert store.get("ns", "lost") is None
    assert {each["metadata"]["name"] for each in changed} == {"a", "same", "lost"}
    assert store.put(obj(1101, "lost"))


def test_news_that_is_newer_than_a_list_shows_no_restore() -> None:
    store = Store()
    store.put(obj(990))
    list(store.replace([Entry.of(obj(850))], version=980, asked_at=850))
    assert store.restores == 0
    assert store.get("ns", "a") == obj(990)
