"""Who is let in, how long, and what a refused caller reads."""

import json
from time import perf_counter_ns
from typing import Any

import pytest

from gateway.access.denials import Denials, Reason
from gateway.access.directory import Directory
from gateway.access.gatekeeper import Gatekeeper
from gateway.access.json_web_token import parse_keys
from gateway.access.permissions import PAGES, RPCS, Scope
from gateway.access.principal import NOBODY, Grant, Role
from gateway.access.roles_file import EVERYONE, parse_roles
from gateway.access.token_file import parse_tokens
from gateway.errors import PermissionDenied, Unauthenticated, UnknownModel
from tests.access.guarded import token_of, tokens_file
from tests.access.issuer import EXPECTED, NOW_S, Clock, Issuer

INFER = b"/inference.GRPCInferenceService/ModelInfer"
APPLY = b"/gateway.v1.Control/Apply"
HEALTH = b"/grpc.health.v1.Health/Check"
ROLES = """
identities:
  spiffe://prod/checkout: {by: [certificate], tenant: acme, grants: [{role: infer}]}
  alice: {by: [jwt], grants: [{role: approver}]}
groups:
  ml: {grants: [{role: operator, models: [fraud*, other]}]}
tenants:
  acme: {models: [fraud*]}
"""


@pytest.fixture(scope="module")
def issuer() -> Issuer:
    made = Issuer()
    made.add("ec")
    return made


@pytest.fixture
def denials() -> Denials:
    return Denials()


@pytest.fixture
def gate(issuer: Issuer, clock: Clock, denials: Denials) -> Gatekeeper:
    directory = Directory(
        parse_tokens(tokens_file()), parse_roles(ROLES), parse_keys(issuer.document()), EXPECTED, denials
    )
    return Gatekeeper(directory, wall_s=clock)


def bearer(token: str) -> bytes:
    return f"Bearer {token}".encode()


def test_a_token_is_its_name_its_roles_and_its_models(gate: Gatekeeper) -> None:
    principal = gate.authorize(INFER, bearer(token_of("infer")), ())
    assert (principal.name, principal.method, principal.grants) == ("infer", "token", (Grant(Role.INFER, ("affine",)),))
    with pytest.raises(PermissionDenied, match="needs the role operator; 'infer' holds infer") as caught:
        gate.authorize(APPLY, bearer(token_of("infer")), ())
    assert token_of("infer") not in str(caught.value)


def test_a_caller_that_was_seen_is_not_proven_again(gate: Gatekeeper) -> None:
    first = gate.authorize(INFER, bearer(token_of("infer")), ())
    assert gate.authorize(INFER, bearer(token_of("infer")), ()) is first
    assert gate.authorize(HEALTH, bearer(token_of("infer")), ()) is first


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_scheme_is_written_as_one_likes(gate: Gatekeeper, scheme: str) -> None:
    assert gate.authorize(INFER, f"{scheme} {token_of('infer')}".encode(), ()).name == "infer"


@pytest.mark.parametrize(
    "authorization",
    [b"", b"Bearer", b"Bearer ", b"Basic YTpi", b"Bearer gwt_", b"Bearer nonsense", b"Bearer \xff\xfe", b"gwt_late"],
)
def test_a_credential_that_proves_nothing(gate: Gatekeeper, denials: Denials, authorization: bytes) -> None:
    with pytest.raises(Unauthenticated):
        gate.authorize(INFER, authorization, ())
    assert denials.counts[Reason.CREDENTIAL] == 1
    assert gate.authorize(HEALTH, authorization, ()) is NOBODY


def test_a_static_token_expires_at_its_second(gate: Gatekeeper, clock: Clock) -> None:
    clock.now_s = 1_767_225_599.0
    assert gate.authorize(INFER, b"Bearer gwt_late", ()).name == "late"
    clock.now_s += 1
    with pytest.raises(Unauthenticated, match="has expired: ask for a new one"):
        gate.authorize(INFER, b"Bearer gwt_late", ())


def test_a_seen_jwt_expires_too(gate: Gatekeeper, issuer: Issuer, clock: Clock) -> None:
    token = bearer(issuer.sign("ec", groups=["ml"], exp=NOW_S + 60))
    assert gate.authorize(APPLY, token, ()).name == "alice"
    clock.now_s += 89
    assert gate.authorize(APPLY, token, ()).name == "alice"
    clock.now_s += 1
    with pytest.raises(Unauthenticated, match="has expired"):
        gate.authorize(APPLY, token, ())


def test_claims_give_name_tenant_and_roles(gate: Gatekeeper, issuer: Issuer) -> None:
    principal = gate.authorize(APPLY, bearer(issuer.sign("ec", groups=["ml", "unknown"], tenant="acme")), ())
    assert (principal.name, principal.tenant, principal.method) == ("alice", "acme", "jwt")
    assert Role.OPERATOR in principal.roles_on("fraud-2")
    assert principal.roles_on("other") == frozenset()  # granted, but not the tenant's
    assert Role.APPROVER in principal.roles_on("fraud-2")
    with pytest.raises(PermissionDenied, match="the tenant is not known here"):
        gate.authorize(APPLY, bearer(issuer.sign("ec", groups=["ml"], tenant="unheard")), ())


@pytest.mark.parametrize("claims", [{"sub": None}, {"sub": 7}, {"sub": ""}, {"sub": "a\nb"}, {"tenant": ["acme"]}])
def test_claims_that_are_no_names(gate: Gatekeeper, issuer: Issuer, claims: dict[str, Any]) -> None:
    with pytest.raises(Unauthenticated):
        gate.authorize(APPLY, bearer(issuer.sign("ec", groups=["ml"], **claims)), ())


def test_a_name_counts_only_as_it_may_be_proven(gate: Gatekeeper, issuer: Issuer) -> None:
    """A subject that an identity provider lets its users choose is not the certificate of that name."""
    proven = gate.authorize(INFER, None, ("spiffe://prod/checkout", "checkout.example"))
    assert (proven.name, proven.tenant, proven.method) == ("spiffe://prod/checkout", "acme", "certificate")
    with pytest.raises(PermissionDenied, match="holds none"):
        gate.authorize(INFER, bearer(issuer.sign("ec", sub="spiffe://prod/checkout")), ())


def test_a_certificate_whose_names_nobody_knows_may_nothing(gate: Gatekeeper) -> None:
    with pytest.raises(PermissionDenied, match="'stranger' holds none"):
        gate.authorize(INFER, None, ("stranger",))
    assert gate.authorize(HEALTH, None, ("stranger",)).name == "stranger"
    everyone = Gatekeeper(Directory(roles=EVERYONE), wall_s=lambda: 0.0)
    assert everyone.authorize(APPLY, None, ("stranger",)).roles_everywhere() == set(Role)


def test_a_token_goes_before_the_certificate(gate: Gatekeeper) -> None:
    assert gate.authorize(INFER, bearer(token_of("infer")), ("spiffe://prod/checkout",)).name == "infer"
    with pytest.raises(Unauthenticated):
        gate.authorize(INFER, b"Bearer nonsense", ("spiffe://prod/checkout",))


def test_a_new_directory_counts_from_the_next_call_on(gate: Gatekeeper) -> None:
    gate.authorize(INFER, bearer(token_of("infer")), ())
    gate.authorize(INFER, None, ("spiffe://prod/checkout",))
    gate.replace(Directory(roles=parse_roles("")))
    for authorization, names in ((bearer(token_of("infer")), ()), (None, ("spiffe://prod/checkout",))):
        with pytest.raises((Unauthenticated, PermissionDenied)):
            gate.authorize(INFER, authorization, names)


def test_what_is_remembered_is_bounded_and_never_what_was_refused(gate: Gatekeeper, issuer: Issuer) -> None:
    for number in range(5000):
        gate.authorize(HEALTH, None, (f"host-{number}",))
        gate.authorize(HEALTH, b"Bearer gwt_%d" % number, ())
    assert len(gate._certificates) <= 4096
    assert not gate._passes


def test_one_token_takes_two_places_and_is_proven_once_for_each_whatever_its_forms(gate: Gatekeeper) -> None:
    token = token_of("infer")
    proven = set()
    for blanks in range(50):
        for authorization in (f"Bearer {' ' * blanks}{token}", f"bearer {token}{' ' * blanks}", f"BEARER {token}\t"):
            principal = gate.authorize(INFER, authorization.encode(), ())
            assert principal.name == "infer"
            proven.add(id(principal))
    assert {*gate._passes} == {f"Bearer {token}".encode(), f"bearer {token}".encode()}
    assert len(proven) == 2
    for other in (f"Digest {token}", f"bearer_{token}", f"Bearer\t{token}", token):
        with pytest.raises(Unauthenticated):
            gate.authorize(INFER, other.encode(), ())


def test_a_key_that_is_not_known_is_asked_for(issuer: Issuer) -> None:
    wanted = []
    directory = Directory(roles=parse_roles(ROLES), expected=EXPECTED)
    gate = Gatekeeper(directory, wall_s=lambda: NOW_S, unknown_key=lambda: wanted.append(1))
    with pytest.raises(Unauthenticated, match="ask its issuer for a new token"):
        gate.authorize(APPLY, bearer(issuer.sign("ec")), ())
    assert wanted == [1]
    assert gate.denials.counts[Reason.SIGNING_KEY] == 1


def test_a_path_that_the_table_does_not_have_is_nobodys(gate: Gatekeeper) -> None:
    for path in (b"/debug", b"", INFER + b"/", INFER.lower()):
        with pytest.raises(PermissionDenied, match="nobody may call this"):
            gate.authorize(path, bearer(token_of("admin")), ())


@pytest.mark.parametrize("page", sorted(PAGES))
def test_pages_of_all_models_need_a_reader_of_all_models(gate: Gatekeeper, page: str) -> None:
    path = page.encode()
    if PAGES[page].is_open:
        assert gate.authorize(path, None, ()) is NOBODY
        return
    with pytest.raises(Unauthenticated):
        gate.authorize(path, None, ())
    if PAGES[page].scope is not Scope.EVERYWHERE:
        # What it shows and does is checked once more for its models.
        assert gate.authorize(path, bearer(token_of(min(PAGES[page].roles))), ()).name
        with pytest.raises(PermissionDenied):
            gate.authorize(path, bearer(token_of("infer")), ())
        return
    with pytest.raises(PermissionDenied, match="reader on all models; 'reader' holds none on all models"):
        gate.authorize(path, bearer(token_of("reader")), ())


def test_refusals_are_counted_and_told_now_and_then(
    gate: Gatekeeper, denials: Denials, caplog: pytest.LogCaptureFixture
) -> None:
    principal = gate.authorize(INFER, bearer(token_of("infer")), ())
    for _ in range(1000):
        with pytest.raises(Unauthenticated):
            gate.authorize(APPLY, None, ())
        with pytest.raises(UnknownModel):
            principal.check(RPCS[INFER.decode()].roles, "hers")
    assert not caplog.records
    assert denials.told() == {}
    denials.tell()
    denials.tell()
    assert [record.getMessage() for record in caplog.records] == [
        "1000 callers were refused (no_credential); the last: nobody called /gateway.v1.Control/Apply",
        "1000 callers were refused (model); the last: infer called model 'hers'",
    ]
    assert json.loads(json.dumps(denials.told()))["model"] == {"count": 1000, "last": "infer called model 'hers'"}


def test_a_caller_that_was_seen_costs_less_than_a_microsecond(gate: Gatekeeper) -> None:
    """Each request brings bytes of its own, whose hash is not known yet; the quickest turn was not disturbed."""
    token = bearer(token_of("infer"))
    gate.authorize(INFER, token, ())
    turns = [[(bytes(bytearray(INFER)), bytes(bytearray(token))) for _ in range(200)] for _ in range(50)]

    def quickest_ns() -> float:
        spent = []
        for turn in turns:
            begin = perf_counter_ns()
            for path, authorization in turn:
                gate.authorize(path, authorization, ())
            spent.append((perf_counter_ns() - begin) / len(turn))
        return min(spent)

    assert quickest_ns() < 1000
