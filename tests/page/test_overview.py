"""The read model."""

from typing import Any

import msgspec

from gateway.page.host_view import SHOWN_FEATURES, HostView, host_view
from gateway.page.overview import Overview, overview_of, visible
from gateway.page.traffic import ArmTraffic
from gateway.pb import control_pb2 as pb
from gateway.telemetry.events import Event

DOCUMENT = {
    "metadata": {"model": "m"},
    "spec": {
        "arms": {"a": {"version": "1"}, "b": {"version": "2"}},
        "strategy": {"ab": {"control": "a", "weights": {"a": "75%", "b": "25%"}}},
    },
}
ROUTE = pb.Route(
    model="m",
    revision=7,
    document_json=msgspec.json.encode(DOCUMENT).decode(),
    table=[pb.Interval(start=0, end=750_000, arm="a"), pb.Interval(start=750_000, end=1_000_000, arm="b")],
    committed_at_us=1,
)


def traffic(arm: str, version: str, requests: float, model: str = "m") -> ArmTraffic:
    return ArmTraffic(model, version, arm, requests, 1.0, 0.0, 0.5, 2.0)


def host(**given: Any) -> HostView:
    fields: dict[str, Any] = {
        "at_s": 1.0,
        "release": "r",
        "host": "h",
        "traffic": (traffic("a", "1", 30.0), traffic("b", "2", 10.0)),
        "sums": {"log": {"seen": 10, "written": 9, "dropped": {"full": 1}}},
        "gauges": {
            0: {"breakers": [{"model": "m", "arm": "b", "state": "closed"}], "feed_state": "LIVE", "revision": 7},
            1: {"breakers": [{"model": "m", "arm": "b", "state": "open"}], "refused": {"m": "why"}},
        },
        "processes": ({"role": "worker", "slot": 0, "state": "READY", "pid": 5, "restarts": 0, "reason": ""},),
        "drift": {
            "at_s": 5.0,
            "arms": [{"model": "m", "features": [{"feature": str(n)} for n in range(20)]}, {"model": "x"}],
            "mirrors": [{"model": "m", "arm": "b", "agreement": 0.9, "pairs": 10}],
        },
        "performance": {"arms": [{"model": "m"}]},
        "events": [Event("t", "s", str(n), 0) for n in range(30)],
    }
    return host_view(**fields | given)


def overview(view: HostView | None) -> Overview:
    return overview_of(
        pb.ListRoutesResponse(routes=[ROUTE], epoch="e", revision=7),
        [],
        [],
        [],
        [],
        view,
        unknown={},
        also=lambda text: ["a phrase"],
        moment=str,
    )


def test_an_arm_has_its_share_and_what_it_does() -> None:
    [route] = overview(host()).routes
    assert (route.strategy, route.shares, route.also) == ("ab", {"a": 75.0, "b": 25.0}, ("a phrase",))
    first, second = route.arms
    assert (first.arm, first.version, first.share, first.live_share, first.breaker) == ("a", "1", 75.0, 75.0, "")
    assert (second.breaker, second.mirror) == ("open", {"model": "m", "arm": "b", "agreement": 0.9, "pairs": 10})
    assert second.traffic is not None
    assert second.traffic.requests == 10.0


MIRRORED = {
    "shadows": {
        "m": {
            "b": {"outcomes": {"agree": 997, "differ": 3, "error": 1, "dropped_full": 2, "dropped_cpu": 5}, "rows": 9}
        },
        "x": {"b": {"outcomes": {}, "rows": 0}},
    }
}


def test_a_mirror_counts_its_copies_whatever_the_log_has() -> None:
    view = host(sums=MIRRORED, drift={})
    counted = {"model": "m", "arm": "b", "agree": 997, "differ": 3, "error": 1, "dropped": 7}
    assert view.copies == (counted, {"model": "x", "arm": "b", "agree": 0, "differ": 0, "error": 0, "dropped": 0})
    [route] = overview(view).routes
    assert [(arm.mirror, arm.copies) for arm in route.arms] == [(None, None), (None, counted)]
    own = visible(view, lambda model: model == "m", everything=False)
    assert own is not None
    assert own.copies == (counted,)


def test_without_a_host_nothing_is_claimed_of_arms() -> None:
    [route] = overview(None).routes
    assert [(arm.live_share, arm.traffic, arm.breaker, arm.copies) for arm in route.arms] == [
        (None, None, "", None)
    ] * 2


def test_arms_that_no_document_names_are_shown() -> None:
    [route] = overview(host(traffic=(traffic("a", "1", 1.0), traffic("holdout", "1", 1.0)))).routes
    assert [arm.arm for arm in route.arms] == ["a", "b", "holdout"]


def test_one_look_is_no_silence() -> None:
    assert not host(traffic=None).traffic_known
    assert host(traffic=()).traffic_known


def test_a_host_tells_the_worst_and_the_newest() -> None:
    view = host()
    assert [one["id"] for one in view.events][:2] == ["29", "28"]
    assert len(view.drift[0]["features"]) == SHOWN_FEATURES
    assert view.drift[0]["features_in_all"] == 20
    assert view.log["dropped"] == {"full": 1}
    assert view.troubles == ("worker 1 does not follow the route of m: why",)


def test_who_may_not_read_everything_sees_its_own_models() -> None:
    view = host(traffic=(traffic("a", "1", 1.0), traffic("a", "1", 1.0, "x")))
    assert visible(view, lambda _: False, everything=True) is view
    own = visible(view, lambda model: model == "m", everything=False)
    assert own is not None
    assert [one.model for one in own.traffic] == ["m"]
    assert [one["model"] for one in own.drift] == ["m"]
    assert (own.events, own.processes, own.log, own.troubles) == ((), (), {}, ())
    assert visible(None, lambda _: True, everything=False) is None


def test_the_read_model_survives_json() -> None:
    made = overview(host())
    assert msgspec.json.decode(msgspec.json.encode(made), type=Overview) == made
