"""Sessions: made, listed, deleted; one default each; nobody reaches into another tenant's."""

from __future__ import annotations

import base64
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from support import rest

if TYPE_CHECKING:
    import httpx2

    from support.server import Server

UNKNOWN = "ses_" + "a" * 26


@pytest.mark.covers("S01", "R02")
def test_a_session_is_made_listed_and_deleted(http: httpx2.Client) -> None:
    made = http.post("/api/sessions", json={"name": "Q1: Umsätze", "description": "two\nlines"})
    assert made.status_code == 201
    session = made.json()
    assert (session["name"], session["description"], session["class_name"]) == ("Q1: Umsätze", "two\nlines", "default")
    assert (session["sandbox"], session["executions"], session["is_default"]) == ("none", 0, False)
    assert session["created_at"] < session["expires_at"]
    rest.run(http, "1", session["session_id"])
    got = http.get(f"/api/sessions/{session['session_id']}").json()
    assert (got["sandbox"], got["executions"]) == ("running", 1)
    assert got["last_used_at"] > session["last_used_at"]
    assert session["session_id"] in {s["session_id"] for s in http.get("/api/sessions").json()["sessions"]}
    deleted = http.delete(f"/api/sessions/{session['session_id']}")
    assert (deleted.status_code, deleted.json()) == (200, {"deleted": session["session_id"]})
    for answer in (
        http.get(f"/api/sessions/{session['session_id']}"),
        http.delete(f"/api/sessions/{session['session_id']}"),
        http.post("/api/execute", json={"code": "1", "session_id": session["session_id"]}),
    ):
        rest.problem(answer, 404, "not_found")


@pytest.mark.covers("S01")
def test_a_session_needs_no_body(http: httpx2.Client) -> None:
    made = http.post("/api/sessions")
    assert made.status_code == 201
    assert http.delete(f"/api/sessions/{made.json()['session_id']}").status_code == 200


@pytest.mark.covers("S01")
@pytest.mark.parametrize("name", ["../etc", "a/b", "a\\b", "..", "n" * 201, "a\nb", "a\x00b"])
def test_a_name_with_path_parts_is_refused(http: httpx2.Client, name: str) -> None:
    assert "name" in rest.problem(http.post("/api/sessions", json={"name": name}), 400, "invalid_argument")["detail"]


@pytest.mark.covers("S01")
def test_an_unknown_class_is_refused_with_those_there_are(http: httpx2.Client) -> None:
    problem = rest.problem(http.post("/api/sessions", json={"class_name": "gpu"}), 400, "invalid_argument")
    assert problem["details"]["allowed"] == ["default"]


@pytest.mark.covers("S01")
def test_pages_show_each_session_once(http: httpx2.Client) -> None:
    made = [http.post("/api/sessions", json={"name": f"page {n}"}).json()["session_id"] for n in range(5)]
    seen, cursor = [], None
    while True:
        page = http.get("/api/sessions", params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
        assert len(page["sessions"]) <= 2
        seen += [s["session_id"] for s in page["sessions"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert len(seen) == len(set(seen))
    assert [s for s in seen if s in made] == made[::-1]
    for session_id in made:
        http.delete(f"/api/sessions/{session_id}")


@pytest.mark.covers("S01")
@pytest.mark.parametrize(
    "params",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": "x"},
        {"cursor": "!"},
        {"cursor": "YWJj"},
        {"cursor": base64.b64encode(b"9999-12-31T23:59:59-23:59 a").decode()},  # no such moment in UTC
    ],
)
def test_a_bad_page_is_refused(http: httpx2.Client, params: dict[str, str]) -> None:
    rest.problem(http.get("/api/sessions", params=params), 400, "invalid_argument")


@pytest.mark.covers("C02", "S01")
def test_first_calls_at_the_same_time_make_one_default_session(server: Server) -> None:
    with rest.client(server, rest.make_key(server, "racer", "racers")) as racer:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: racer.get("/api/sessions/default"), range(8)))
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.json()["session_id"] for answer in answers}) == 1
        assert [s["is_default"] for s in racer.get("/api/sessions").json()["sessions"]] == [True]


@pytest.mark.covers("C02", "S02")
@pytest.mark.attack("XS06")
def test_default_is_the_callers_own(http: httpx2.Client, other_tenant: httpx2.Client) -> None:
    rest.run(http, "whose = 'mine'", "default")
    rest.run(other_tenant, "whose = 'theirs'", "default")
    assert rest.value(http, "whose", "default") == "'mine'"
    assert rest.value(other_tenant, "whose", "default") == "'theirs'"


@pytest.mark.covers("S02")
@pytest.mark.attack("AU06")
def test_another_tenants_session_answers_exactly_like_an_unknown_one(
    http: httpx2.Client, other_tenant: httpx2.Client, session_id: str
) -> None:
    rest.run(http, "secret = 1; open('a.csv', 'w').write('x')", session_id)

    def probe(target: str) -> list[tuple[int, str]]:
        base = f"/api/sessions/{target}"
        answers = [
            other_tenant.get(base),
            other_tenant.get(f"{base}/files"),
            other_tenant.get(f"{base}/files/content", params={"path": "a.csv"}),
            other_tenant.put(f"{base}/files/content", params={"path": "a.csv"}, content=b"y"),
            other_tenant.delete(f"{base}/files", params={"path": "a.csv"}),
            other_tenant.get("/api/files", params={"session_id": target}),
            other_tenant.get(f"/charts/{target}/a.png"),
            other_tenant.post("/api/execute", json={"code": "secret", "session_id": target}),
            other_tenant.delete(base),
        ]
        return [(answer.status_code, answer.text) for answer in answers]

    foreign = probe(session_id)
    assert {status for status, _ in foreign} == {404}
    assert foreign == probe(UNKNOWN)
    assert rest.value(http, "secret, open('a.csv').read()", session_id) == "(1, 'x')"


@pytest.mark.covers("S02")
@pytest.mark.parametrize("odd", ["x" * 5000, "%00", "%ff", "..%2f..", "ses_' OR 1=1 --", "%E2%80%AE"])
def test_odd_ids_are_unknown_ids(http: httpx2.Client, odd: str) -> None:
    rest.problem(http.get(f"/api/sessions/{odd}"), 404, "not_found")


@pytest.mark.covers("S01")
@pytest.mark.attack("XS02", "XS03")
def test_a_session_made_after_a_deleted_one_finds_nothing_of_it(http: httpx2.Client) -> None:
    first = rest.run(http, "v = 1; open('left.txt', 'w').write('x'); open('/tmp/left', 'w').write('x')", "")
    old = first["session_info"]["session_id"]
    http.delete(f"/api/sessions/{old}")
    code = "import os; ('v' in globals(), os.listdir(), os.path.exists('/tmp/left'))"
    fresh = rest.run(http, code, "")
    assert fresh["result"] == "(False, [], False)"
    assert fresh["session_info"]["session_id"] != old
    http.delete(f"/api/sessions/{fresh['session_info']['session_id']}")


@pytest.mark.covers("S01")
def test_deleting_a_session_ends_the_code_in_it(http: httpx2.Client, session_id: str) -> None:
    rest.run(http, "import time", session_id)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(
            http.post, "/api/execute", json={"code": "time.sleep(60)", "session_id": session_id}, timeout=30
        )
        while http.get(f"/api/sessions/{session_id}").json()["sandbox"] != "busy":
            pass
        assert http.delete(f"/api/sessions/{session_id}").status_code == 200
        rest.problem(running.result(20), 404, "not_found")


@pytest.mark.covers("S05")
def test_over_the_limit_of_sessions_the_error_says_what_to_do(server: Server) -> None:
    with rest.client(server, rest.make_key(server, "hoarder", "hoarders")) as hoarder:
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(lambda _: hoarder.post("/api/sessions"), range(104)))
        assert sorted(answer.status_code for answer in answers) == [201] * 100 + [409] * 4
        refused = next(answer for answer in answers if answer.status_code == 409)
        assert rest.problem(refused, 409, "session_limit")["details"]["limit"] == 100
        made = next(answer for answer in answers if answer.status_code == 201).json()["session_id"]
        assert hoarder.delete(f"/api/sessions/{made}").status_code == 200
        assert hoarder.post("/api/sessions").status_code == 201
