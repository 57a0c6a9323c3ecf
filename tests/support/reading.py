"""Reading one's own writes, while a load goes on."""

import asyncio

import aiohttp

from support.load import Load


async def read_back(session: aiohttp.ClientSession, query_url: str, load: Load, stop: asyncio.Event) -> int:
    """Read what was just written, where a query service answers: it must be there, and no older."""
    reads = 0
    headers = {"Authorization": f"Bearer {load.token}", "Prefer": "wait=5"}
    while not stop.is_set():
        await asyncio.sleep(0.05)
        written = [each for each in load.acknowledged[-20:] if each.content["changed"] and "events" in each.content]
        if not written:
            continue
        last = written[-1].content["events"][-1]
        kind = last["aggregate_id"].partition("_")[0]
        url = f"{query_url}/v1/{kind}s/{last['aggregate_id']}?min_position={last['position']}"
        try:
            async with session.get(url, headers=headers) as response:
                body = await response.json()
        except (aiohttp.ClientError, TimeoutError):
            continue
        if response.status == 200:
            reads += 1
            if body["resource_version"] < last["seq"] or int(response.headers["Keelson-Position"]) < last["position"]:
                load.faults.append(f"{url} gave {body}")
        elif response.status not in (503, 504):
            load.faults.append(f"{url}: {response.status} {body}")
    return reads
