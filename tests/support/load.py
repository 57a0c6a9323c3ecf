"""A load of concurrent writers who behave as clients should: a key for each command, repeated until it is answered.

They share a small world, so that they get into each other's way: the same names, the same environments.
"""

import asyncio
import json
from collections import defaultdict
from dataclasses import dataclass, field
from random import Random
from typing import Any

import aiohttp

IMAGE = "registry.example/shop@sha256:" + "0123456789abcdef" * 4
NAMES = [f"{word}-{number}" for word in ("web", "api", "jobs", "mail") for number in range(6)]
_NONE = "credential_" + "0" * 26
ANSWER_WITHIN_S = 90.0


@dataclass(frozen=True)
class Request:
    """One command, or a bundle, as it is sent each time."""

    key: str
    path: str
    body: bytes
    # By whose credential; None: the operator's.
    token: str | None = None


@dataclass(frozen=True)
class Answered:
    """A final answer: not 503, not a lost connection."""

    request: Request
    status: int
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """The answer as JSON."""
        content: dict[str, Any] = json.loads(self.body)
        return content

    @property
    def kept(self) -> dict[str, Any]:
        """The answer as it is given again: what is shown once is null from then on."""
        content = self.content
        for part in content.get("results", [content]):
            if part.get("result", {}).get("token"):
                part["result"]["token"] = None
        return content


@dataclass
class Load:
    """What was sent, what was answered, and what was wrong about it."""

    urls: list[str]
    token: str
    seed: int
    answered: dict[str, Answered] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    attempts: int = 0
    replays: int = 0
    acknowledged: list[Answered] = field(default_factory=list)
    _position: int = 1
    _ids: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    _members: list[tuple[str, str]] = field(default_factory=list)
    # The credentials of nodes, and where instances are.
    _machines: dict[str, str] = field(default_factory=dict)
    _placed: dict[str, str] = field(default_factory=dict)

    async def write(self, session: aiohttp.ClientSession, writer: int, stop: asyncio.Event) -> None:
        """Send one command after another until told to stop."""
        random = Random(f"{self.seed}/{writer}")
        number = 0
        while not stop.is_set():
            number += 1
            request = self._next_request(random, f"w{self.seed}-{writer}-{number}")
            copies = 2 if random.random() < 0.05 else 1
            answers = await asyncio.gather(*(self._answer(session, request, random) for _ in range(copies)))
            # A refusal is not kept: of two copies at once, one may be refused and the other be done.
            done = [each for each in answers if each.status == 200]
            first = done[0] if done else answers[0]
            self._note(first)
            if done and random.random() < 0.15:
                self.replays += 1
                done.append(await self._answer(session, request, random))
            self.faults += [
                f"{request.key}: answered {first.body!r}, then {each.status} {each.body!r}"
                for each in done
                if (each.status, each.kept) != (200, first.kept)
            ]

    @property
    def refused_by_quota(self) -> int:
        """How many answers were that an organisation would have more than it may."""
        return sum(each.status == 422 and each.content["code"] == "quota_exceeded" for each in self.answered.values())

    async def enroll(self, session: aiohttp.ClientSession, nodes: int) -> None:
        """Let machines enrol, before anything breaks: who never hears the answer needs another token."""
        random = Random(f"{self.seed}/nodes")
        for number in range(nodes):
            path = "/v1/commands/node.create_enrollment_token"
            awaited = await self._answer(session, Request(f"n{self.seed}-{number}-token", path, b"{}"), random)
            self._note(awaited)
            machine = {"name": f"machine-{self.seed}-{number}", "cpu_millis": 8000, "memory_bytes": 2**32}
            body = json.dumps({"token": awaited.content["result"]["token"], **machine}).encode()
            request = Request(f"n{self.seed}-{number}-enroll", "/v1/commands/node.enroll", body)
            enrolled = await self._answer(session, request, random)
            self._note(enrolled)
            result = enrolled.content["result"]
            self._machines[result["node_id"]] = result["credential"]

    async def settle(self, session: aiohttp.ClientSession, request: Request) -> None:
        """Send a request until it is answered, whoever sent it before."""
        self._note(await self._answer(session, request, Random(request.key)))

    def _note(self, answered: Answered) -> None:
        self.answered[answered.request.key] = answered
        if answered.status == 200:
            self.acknowledged.append(answered)
            self._learn(answered)
        elif answered.status >= 500:
            self.faults.append(f"{answered.request.key}: {answered.status} {answered.body!r}")

    async def _answer(self, session: aiohttp.ClientSession, request: Request, random: Random) -> Answered:
        """Send until answered, to whichever replica chance names; fail if that takes too long."""
        headers = {
            "Authorization": f"Bearer {request.token or self.token}",
            "Content-Type": "application/json",
            "Idempotency-Key": request.key,
            "X-Request-Id": request.key,
            "Keelson-Reason": "load",
        }
        delay_s = 0.02
        async with asyncio.timeout(ANSWER_WITHIN_S):
            while True:
                self.attempts += 1
                try:
                    url = random.choice(self.urls) + request.path
                    async with session.post(url, data=request.body, headers=headers) as response:
                        body = await response.read()
                        if response.status != 503:
                            return Answered(request, response.status, body)
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(delay_s * random.uniform(0.5, 1.5))
                delay_s = min(delay_s * 2, 0.5)

    def _learn(self, answered: Answered) -> None:
        """Know what exists, to act on it later."""
        content = answered.content
        self._position = max(self._position, content["position"])
        for part in content.get("results", [content]):
            for name, value in part["result"].items():
                kind = name.removesuffix("_id")
                if name.endswith("_id") and value is not None and value not in self._ids[kind][-40:]:
                    self._ids[kind].append(value)
        # A member is named together with its organisation, which the answer does not repeat.
        asked = json.loads(answered.request.body)
        if "org_id" in asked and "member_id" in content.get("result", {}):
            self._members.append((asked["org_id"], content["result"]["member_id"]))
        # Likewise where an instance is.
        if "node_id" in asked and "instance_id" in content.get("result", {}):
            self._placed[content["result"]["instance_id"]] = asked["node_id"]

    def _next_request(self, random: Random, key: str) -> Request:
        if self._placed and random.random() < 0.15:
            return self._report(random, key)
        if random.random() < 0.05:
            commands = [self._next_command(random) for _ in range(random.randint(1, 4))]
            body = {"commands": [{"name": name, "data": data} for name, data in commands]}
            return Request(key, "/v1/commands", json.dumps(body).encode())
        name, data = self._next_command(random)
        return Request(key, f"/v1/commands/{name}", json.dumps(data).encode())

    def _next_command(self, random: Random) -> tuple[str, dict[str, Any]]:
        makers = [
            (1, "org", self._org),
            (1, "org", self._quota),
            (2, "org", self._project),
            (3, "project", self._app),
            (4, "app", self._env),
            (4, "app", self._release),
            (8, "release", self._deploy),
            (8, "deploy", self._status),
            (8, "env", self._scale),
            (6, "env", self._config),
            (4, "env", self._rename_env),
            (2, "project", self._rename_project),
            (4, "env", self._route),
            (3, "route", self._change_route),
            (1, "route", self._delete_route),
            (4, "env", self._set_secret),
            (1, "secret", self._delete_secret),
            (3, "env", self._roll_back),
            (3, "org", self._member),
            (4, "member", self._change_member),
            (2, "org", self._principal),
            (3, "principal", self._change_principal),
            (8, "node", self._allocate),
            (4, "instance", self._call_off),
            (1, "node", self._change_node),
            (1, "env", self._delete_env),
            (1, "app", self._delete_app),
        ]
        if not self._ids["org"]:
            return self._org(random)
        # An environment and a release may be of different apps, and anything may be deleted: refusals are part of it.
        possible = [maker for maker in makers if self._ids[maker[1]] and (maker[1] != "release" or self._ids["env"])]
        return random.choices(possible, [weight for weight, _, _ in possible])[0][2](random)

    def _some(self, random: Random, kind: str) -> str:
        """Name one of the last few of a kind, so that writers meet."""
        return random.choice(self._ids[kind][-12:])

    def _org(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "org.create", {"name": f"{random.choice(NAMES)}-{random.randint(0, 20)}"}

    def _quota(self, random: Random) -> tuple[str, dict[str, Any]]:
        """Set one that is soon met, or none."""
        most = {"projects": 4, "apps": 8, "envs": 12, "instances": 150, "memory_bytes": 150 * 2**28}
        names = random.sample(sorted(most), random.randint(0, 3))
        return "org.set_quota", {
            "org_id": self._some(random, "org"),
            "quota": {name: random.randint(1, most[name]) for name in names},
        }

    def _project(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "project.create", {"org_id": self._some(random, "org"), "name": random.choice(NAMES)}

    def _app(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "app.create", {"project_id": self._some(random, "project"), "name": random.choice(NAMES)}

    def _env(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "env.create", {"app_id": self._some(random, "app"), "name": random.choice(NAMES)}

    def _release(self, random: Random) -> tuple[str, dict[str, Any]]:
        processes = {
            name: {"command": ["run", name], "ports": [{"name": "http", "port": 8080}], "health": {"port": "http"}}
            for name in random.sample(["web", "worker", "clock"], random.randint(1, 3))
        }
        return "release.create", {"app_id": self._some(random, "app"), "image": IMAGE, "processes": processes}

    def _deploy(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "deploy.create", {"env_id": self._some(random, "env"), "release_id": self._some(random, "release")}

    def _status(self, random: Random) -> tuple[str, dict[str, Any]]:
        status = random.choice(["rolling", "succeeded", "failed"])
        return "deploy.set_status", {"deploy_id": self._some(random, "deploy"), "status": status}

    def _scale(self, random: Random) -> tuple[str, dict[str, Any]]:
        process = random.choice(["web", "worker", "clock"])
        return "env.scale", {"env_id": self._some(random, "env"), "replicas": {process: random.randint(0, 20)}}

    def _config(self, random: Random) -> tuple[str, dict[str, Any]]:
        variables = {name: str(random.randint(0, 3)) for name in ("LOG_LEVEL", "THREADS")}
        return "env.set_config", {"env_id": self._some(random, "env"), "variables": variables}

    def _rename_env(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "env.rename", {"env_id": self._some(random, "env"), "name": random.choice(NAMES)}

    def _rename_project(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "project.rename", {"project_id": self._some(random, "project"), "name": random.choice(NAMES)}

    def _route(self, random: Random) -> tuple[str, dict[str, Any]]:
        process, port = random.choice(["web", "worker", "clock"]), random.choice(["http", "http", "http", "admin"])
        data = {"hostname": f"{random.choice(NAMES)}.example", "process": process, "port": port}
        return "route.create", {"env_id": self._some(random, "env"), **data}

    def _change_route(self, random: Random) -> tuple[str, dict[str, Any]]:
        change = random.choice([{"hostname": f"{random.choice(NAMES)}.example"}, {"process": "worker"}])
        return "route.update", {"route_id": self._some(random, "route"), **change}

    def _delete_route(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "route.delete", {"route_id": self._some(random, "route")}

    def _member(self, random: Random) -> tuple[str, dict[str, Any]]:
        email, role = f"{random.choice(NAMES)}@people.example", random.choice(["owner", "admin", "readonly"])
        return "org.add_member", {"org_id": self._some(random, "org"), "email": email, "role": role}

    def _change_member(self, random: Random) -> tuple[str, dict[str, Any]]:
        if not self._members:
            return self._member(random)
        org_id, member_id = random.choice(self._members[-12:])
        member = {"org_id": org_id, "member_id": member_id}
        changes: list[tuple[str, dict[str, Any]]] = [
            ("org.change_member_role", {"role": random.choice(["owner", "developer"])}),
            ("org.issue_credential", {}),
            ("org.revoke_credential", {"credential_id": random.choice(self._ids["credential"][-12:] or [_NONE])}),
            ("org.remove_member", {}),
            ("org.erase_member", {}),
        ]
        name, data = random.choices(changes, [4, 4, 2, 1, 1])[0]
        return name, member | data

    def _principal(self, random: Random) -> tuple[str, dict[str, Any]]:
        scopes = random.sample(["apps:read", "apps:write", "deploys:write", "*"], random.randint(1, 3))
        return "principal.create", {
            "org_id": self._some(random, "org"),
            "name": random.choice(NAMES),
            "scopes": scopes,
        }

    def _change_principal(self, random: Random) -> tuple[str, dict[str, Any]]:
        changes: list[tuple[str, dict[str, Any]]] = [
            ("principal.set_scopes", {"scopes": [random.choice(["apps:read", "*"])]}),
            ("principal.issue_credential", {"expires_at": "2100-01-01T00:00:00Z"}),
            ("principal.revoke_credential", {"credential_id": random.choice(self._ids["credential"][-12:] or [_NONE])}),
            ("principal.delete", {}),
        ]
        name, data = random.choices(changes, [4, 4, 2, 1])[0]
        return name, {"principal_id": self._some(random, "principal")} | data

    def _allocate(self, random: Random) -> tuple[str, dict[str, Any]]:
        if not self._ids["env"]:
            return self._org(random)
        place = {"process": random.choice(["web", "worker", "clock"]), "node_id": self._some(random, "node")}
        return "instance.allocate", {"env_id": self._some(random, "env"), **place}

    def _call_off(self, random: Random) -> tuple[str, dict[str, Any]]:
        state = random.choice(["draining", "stopped"])
        return "instance.set_desired_state", {"instance_id": self._some(random, "instance"), "desired_state": state}

    def _change_node(self, random: Random) -> tuple[str, dict[str, Any]]:
        node = {"node_id": self._some(random, "node")}
        changes: list[tuple[str, dict[str, Any]]] = [
            ("node.set_state", {"state": random.choice(["active", "active", "draining", "offline"])}),
            ("node.set_capacity", {"cpu_millis": 8000, "memory_bytes": random.choice([2**31, 2**32, 2**33])}),
        ]
        name, data = random.choice(changes)
        return name, node | data

    def _report(self, random: Random, key: str) -> Request:
        """Say how one of the last few instances is, as its node."""
        instance_id, node_id = random.choice(list(self._placed.items())[-24:])
        reports: list[dict[str, Any]] = [
            {"status": "booting"},
            {"status": "ready", "endpoints": {"http": {"host": "10.0.0.7", "port": random.randint(30000, 30003)}}},
            {"status": "failed", "reason_code": "exited", "exit_code": 1},
            {"status": "stopped"},
        ]
        data = {"instance_id": instance_id, **random.choices(reports, [2, 4, 1, 2])[0]}
        body = json.dumps(data).encode()
        return Request(key, "/v1/commands/instance.report_status", body, self._machines[node_id])

    def _set_secret(self, random: Random) -> tuple[str, dict[str, Any]]:
        values = {random.choice("PQ"): random.choice(["x", "y", None])}
        return "secret.set", {"env_id": self._some(random, "env"), "values": values}

    def _delete_secret(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "secret.delete", {"secret_id": self._some(random, "secret")}

    def _roll_back(self, random: Random) -> tuple[str, dict[str, Any]]:
        """To a release, or to a position of not long ago; now and then only for what it would change."""
        to: dict[str, Any] = {"position": max(1, self._position - random.randint(0, 60))}
        if self._ids["release"] and random.random() < 0.3:
            to = {"release_id": self._some(random, "release")}
        return "env.rollback", {"env_id": self._some(random, "env"), "dry_run": random.random() < 0.2, **to}

    def _delete_env(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "env.delete", {"env_id": self._some(random, "env")}

    def _delete_app(self, random: Random) -> tuple[str, dict[str, Any]]:
        return "app.delete", {"app_id": self._some(random, "app")}
