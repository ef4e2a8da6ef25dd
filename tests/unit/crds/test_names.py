"""The public names satisfy what Kubernetes demands of them."""

from __future__ import annotations

import re

import pytest

from interpreter_crds import names

DNS_LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


@pytest.mark.parametrize("kind", names.KINDS, ids=lambda kind: kind.kind)
def test_a_kind_has_names_that_an_api_server_takes(kind: names.Kind) -> None:
    assert kind.singular == kind.kind.lower()
    assert DNS_LABEL.fullmatch(kind.plural)
    assert kind.plural != kind.singular
    assert kind.crd_name == f"{kind.plural}.powerinterpreter.io"
    assert len(kind.crd_name) <= 253


def test_the_version_is_one_that_sorts_before_stable_ones() -> None:
    assert re.fullmatch(r"v\d+(alpha|beta)\d+", names.VERSION)
    assert names.API_VERSION == "powerinterpreter.io/v1alpha1"


def test_no_two_kinds_share_a_name() -> None:
    assert len({kind.plural for kind in names.KINDS}) == len({kind.kind for kind in names.KINDS}) == len(names.KINDS)
