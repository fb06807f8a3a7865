"""Fallbacks, breakers and shadows as Prometheus sees them."""

from prometheus_client.parser import text_string_to_metric_families

from gateway.telemetry.exposition import HostMetrics, text
from gateway.telemetry.sums import add


def exposed(sums: dict[str, object], gauges: dict[int, dict[str, object]]) -> dict[str, float]:
    exposition, _ = text(HostMetrics(sums, gauges, (), "1.0"))
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in text_string_to_metric_families(exposition.decode())
        for sample in family.samples
        if sample.name.startswith(("gateway_fallbacks", "gateway_breaker", "gateway_shadow"))
    }


def test_counts_of_workers_add_up_by_arm() -> None:
    one: dict[str, object] = {
        "fallbacks": {"fraud": {"stable": {"INTERNAL": 2}}},
        "shadows": {"fraud": {"cand": {"outcomes": {"agree": 3, "dropped_full": 1}, "rows": 6, "same_rows": 5}}},
    }
    other: dict[str, object] = {
        "fallbacks": {"fraud": {"stable": {"INTERNAL": 1, "BREAKER": 4}}},
        "shadows": {"fraud": {"cand": {"outcomes": {"differ": 1}, "rows": 1, "same_rows": 0}}},
    }
    arm, cand = "('arm', 'stable'), ('model', 'fraud')", "('arm', 'cand')"
    assert exposed(add(one, other), {}) == {
        f"gateway_fallbacks_total[{arm}, ('why', 'INTERNAL')]": 3,
        f"gateway_fallbacks_total[{arm}, ('why', 'BREAKER')]": 4,
        f"gateway_shadow_total[{cand}, ('model', 'fraud'), ('outcome', 'agree')]": 3,
        f"gateway_shadow_total[{cand}, ('model', 'fraud'), ('outcome', 'dropped_full')]": 1,
        f"gateway_shadow_total[{cand}, ('model', 'fraud'), ('outcome', 'differ')]": 1,
        f"gateway_shadow_rows_total[('argmax', 'same'), {cand}, ('model', 'fraud')]": 5,
        f"gateway_shadow_rows_total[('argmax', 'other'), {cand}, ('model', 'fraud')]": 2,
    }


def test_breakers_and_differences_are_shown_for_each_worker() -> None:
    labels = {"model": "fraud", "arm": "stable"}
    gauges: dict[int, dict[str, object]] = {
        slot: {"breakers": [{**labels, "state": state}], "shadow_differences": [{**labels, "value": slot + 0.5}]}
        for slot, state in enumerate(("closed", "half_open", "open"))
    }
    page = exposed({}, gauges)
    for slot in range(3):
        where = f"[('arm', 'stable'), ('model', 'fraud'), ('worker', '{slot}')]"
        assert page[f"gateway_breaker_state{where}"] == slot
        assert page[f"gateway_shadow_max_abs_difference{where}"] == slot + 0.5
