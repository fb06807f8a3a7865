"""What a document may not say, and the words in which it is refused."""

import pytest

from tests.routing.documents import ab, changed, refused


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("apiVersion", "gateway/v2", "apiVersion: 'gateway/v2' is not \"gateway/v1\""),
        ("kind", None, 'kind: null is not "Route"'),
        ("metadata.model", "../etc", "metadata.model: '../etc' is not a name of the form"),
        ("metadata.model", "m\n", "metadata.model: 'm\\n' is not a name"),
        ("metadata.model", "m" * 129, "metadata.model"),
        ("metadata.model", "é", "metadata.model"),
        ("metadata.owner", 5, "metadata.owner: 5 is not text"),
        ("metadata.team", "x", "metadata.team: unknown field (allowed: model, owner, description, labels)"),
        ("spec.wieghts", {}, "spec.wieghts: unknown field"),
        ("spec.fallbck", {}, 'spec.fallbck: unknown field; did you mean "fallback"?'),
        ("spec.strategy.ab.weigths", {}, 'spec.strategy.ab.weigths: unknown field; did you mean "weights"?'),
        ("spec.arms", {}, "spec.arms: no arm"),
        ("spec.arms", [], "spec.arms: a list is not a mapping of arms"),
        ("spec.arms.b", {"version": "12"}, "spec.arms.b: version '12' is that of arm 'a' already"),
        ("spec.arms.b", {}, "spec.arms.b: exactly one of version, label is needed"),
        ("spec.arms.b", {"label": "x"}, "spec.arms.b.label: there are no spec.labels"),
        ("spec.arms.b", {"version": 1.1}, 'spec.arms.b.version: 1.1 is not a version: write it as text, "1.1"'),
        ("spec.arms.b", {"version": "../1"}, "spec.arms.b.version: '../1' is not a name"),
        ("spec.arms.b", {"version": -1}, "spec.arms.b.version: -1 is not a name"),
        ("spec.arms.holdout", {"version": "9"}, 'spec.arms.holdout: the name "holdout" is kept'),
        ("spec.labels", {"champion": {"alias": "champion"}}, "spec.labels.champion.version: required, but missing"),
        ("spec.labels", {"champion": {"version": "9"}}, "spec.labels.champion.alias: required, but missing"),
        (
            "spec.labels",
            {"c": {"version": "9", "alias": "a", "approvals": 11}},
            "spec.labels.c.approvals: 11 is not a whole number from 0 to 10",
        ),
        ("spec.labels", {"c": {"version": "9", "alias": "a", "follow": 1}}, "spec.labels.c.follow: unknown field"),
        ("spec.labels", {"12": "9"}, "spec.labels.12: a version that this route names has the same name"),
        ("spec.strategy", {}, "spec.strategy: exactly one of ab, canary, blueGreen, pinned is needed, given: none"),
        ("spec.strategy.pinned", {"arm": "a"}, "spec.strategy: exactly one of"),
        (
            "spec.strategy",
            {"pinned": {"arm": "z"}},
            "spec.strategy.pinned.arm: 'z' is not an arm of this route (a, b, c)",
        ),
        ("spec.strategy", {"pinned": {}}, "spec.strategy.pinned.arm: required, but missing"),
        ("spec.strategy", ab("c", a=100), "spec.strategy.ab.control: 'c' is not an arm with a weight"),
        ("spec.strategy", ab("a", a=50, z=50), "spec.strategy.ab.weights.z: 'z' is not an arm of this route"),
        ("spec.strategy", ab("a", "100%", a=100), "spec.strategy.ab.holdout: a holdout of 100 %"),
        ("spec.strategy", {"canary": {"weight": 5}}, "spec.strategy.canary.stable: 'stable' is not an arm"),
        ("spec.strategy", {"canary": {"stable": "a", "canary": "a", "weight": 5}}, "spec.strategy.canary: the stable"),
        ("spec.strategy", {"canary": {"stable": "a", "canary": "b"}}, "spec.strategy.canary: either weight or steps"),
        (
            "spec.strategy",
            {"canary": {"stable": "a", "canary": "b", "steps": []}},
            "spec.strategy.canary.steps: no step",
        ),
        (
            "spec.strategy",
            {"canary": {"stable": "a", "canary": "b", "steps": [{"weight": 5}], "step": 1}},
            "spec.strategy.canary.step: 1 is not a whole number from 0 to 0",
        ),
        *(
            (
                "spec.strategy",
                {"canary": {"stable": "a", "canary": "b", "steps": steps}},
                f"spec.strategy.canary.steps{at}",
            )
            for steps, at in (
                ([{"offline": {}}], "[0].offline: a step with a share has to follow"),
                ([{"weight": 5}, {"offline": {}}], "[1].offline: only the first step"),
                ([{"offline": {}, "weight": 5}, {"weight": 5}], "[0].weight: a step that is offline has no traffic"),
                ([{"offline": {"failAbove": "100%"}}, {"weight": 5}], "[0].offline.failAbove: 100 % of the rows"),
                ([{"offline": {"rows": 0}}, {"weight": 5}], "[0].offline.rows: 0 is not a whole number"),
                ([{"offline": {"sql": "x"}}, {"weight": 5}], "[0].offline.sql: unknown field"),
            )
        ),
        (
            "spec.strategy",
            {"canary": {"stable": "a", "canary": "b", "steps": [{"weight": 5, "hold": "5 minutes"}]}},
            "spec.strategy.canary.steps[0].hold: '5 minutes' is not a duration",
        ),
        (
            "spec.strategy",
            {"blueGreen": {"active": "a", "preview": "a"}},
            "spec.strategy.blueGreen.preview: the active",
        ),
        (
            "spec.strategy",
            {"blueGreen": {"active": "a", "previewMatch": {"id": {"exact": "x"}}}},
            "spec.strategy.blueGreen.previewMatch: there is no preview arm",
        ),
        ("spec.key", {"from": []}, "spec.key.from: no key source"),
        ("spec.key", {"from": ["cookie:x"]}, "spec.key.from[0]: 'cookie:x' is not metadata:NAME, input:TENSOR"),
        ("spec.key", {"from": ["metadata:a b"]}, "spec.key.from[0]: 'a b' is not a metadata name"),
        ("spec.key", {"from": ["metadata:x-bin"]}, "spec.key.from[0]: 'x-bin' is not a metadata name"),
        ("spec.key", {"from": ["id", "id"]}, "spec.key.from[1]: id is named twice"),
        (
            "spec.key",
            {"from": ["id"], "onMissing": "drop"},
            "spec.key.onMissing: 'drop' is not one of control, random, reject",
        ),
        ("spec.key", {"from": ["id"], "salt": "x" * 257}, "spec.key.salt: 257 characters, at most 256"),
        ("spec.key", {"from": ["id"], "salt": "a\x00"}, "spec.key.salt: 'a\\x00' is not text without control"),
        ("spec.rules", [{"name": "r", "match": {}, "arm": "a"}], "spec.rules[0].match: no condition"),
        (
            "spec.rules",
            [{"name": "r", "match": {"methods": {}}, "arm": "a"}],
            "spec.rules[0].match.methods: unknown field",
        ),
        (
            "spec.rules",
            [{"name": "r", "match": {"method": {"not": {"in": ["ModelInfer", "Predict"]}}}, "arm": "a"}],
            "spec.rules[0].match.method: there is no method 'Predict', allowed: ModelInfer, ModelStreamInfer",
        ),
        (
            "spec.rules",
            [{"name": "r", "match": {"id": {}}, "arm": "a"}],
            "spec.rules[0].match.id: 0 tests, exactly one",
        ),
        (
            "spec.rules",
            [{"name": "r", "match": {"id": {"regex": "(a"}}, "arm": "a"}],
            "spec.rules[0].match.id.regex: '(a' is not an RE2 pattern",
        ),
        (
            "spec.rules",
            [{"name": "r", "match": {"id": {"range": {"min": 2, "max": 1}}}, "arm": "a"}],
            "spec.rules[0].match.id.range: min 2 is greater than max 1",
        ),
        (
            "spec.rules",
            [{"name": "r", "match": {"metadata": {"X-A": {"present": True}, "x-a": {"present": True}}}, "arm": "a"}],
            "spec.rules[0].match.metadata.x-a: the same metadata name is given twice",
        ),
        (
            "spec.rules",
            [{"name": "r", "match": {"id": {"exact": "x"}}, "arm": "a"}] * 2,
            "spec.rules[1].name: there is another rule with the name 'r'",
        ),
        (
            "spec.rules",
            [{"name": "r", "match": {"id": {"exact": "x"}}, "arm": "a", "until": "2027-01-01T00:00:00"}],
            "spec.rules[0].until: '2027-01-01T00:00:00' is not a date",
        ),
        ("spec.clientPin", {"deny": True, "metadata": "x"}, "spec.clientPin: deny: true refuses every pin"),
        ("spec.fallback", {"order": []}, "spec.fallback.order: no arm"),
        ("spec.fallback", {"order": ["a", "a"]}, "spec.fallback.order[1]: arm 'a' is named twice"),
        ("spec.fallback", {"order": ["a"], "on": ["OK"]}, "spec.fallback.on[0]: 'OK' is not one of NOT_LOADED"),
        (
            "spec.fallback",
            {"order": ["a"], "breaker": {"consecutive": 0}},
            "spec.fallback.breaker.consecutive: 0 is not",
        ),
        ("spec.mirrors", [{"arm": "a", "percent": 1}] * 2, "spec.mirrors[1]: arm 'a' has two mirrors"),
        ("spec.mirrors", [{"arm": "a"}], "spec.mirrors[0].percent: required, but missing"),
        (
            "spec.mirrors",
            [{"arm": "a", "percent": 1, "onFull": "block"}],
            "spec.mirrors[0].onFull: 'block' is not one of drop",
        ),
        (
            "spec.mirrors",
            [{"arm": "a", "percent": 1, "compare": {"score": {"abs": 0}}}],
            "spec.mirrors[0].compare.score: give abs, rel or both",
        ),
        ("spec.log", {"share": 1}, "spec.log.share: unknown field (allowed: rate, arms, keep)"),
        ("spec.log", {"rate": "101%"}, "spec.log.rate: '101%' is not a percentage"),
        ("spec.log", {"arms": {"z": 1}}, "spec.log.arms.z: 'z' is not an arm of this route (a, b, c, holdout)"),
        ("spec.log", {"keep": {"first": -1}}, "spec.log.keep.first: -1 is not a whole number from 0 to 1000000"),
        ("spec.log", {"keep": {"scoreBelow": "low"}}, "spec.log.keep.scoreBelow: 'low' is not a number"),
        ("spec.killSwitch", {"arm": "a"}, "spec.killSwitch.reason: required, but missing"),
        ("spec.killSwitch", {"arm": "z", "reason": "x"}, "spec.killSwitch.arm: 'z' is not an arm of this route"),
    ],
)
def test_refusals_name_the_path_the_value_and_what_is_allowed(path: str, value: object, text: str) -> None:
    assert refused(changed(path, value)).startswith(text)
