"""Schemas as programs send them: the parameters of Home Assistant's and MCP servers' tools, bodies of HTTP
APIs, and what libraries make of their users' classes. Written anew from what is published of them.
"""

from __future__ import annotations

from typing import Any

S: dict[str, Any] = {"type": "string"}
I: dict[str, Any] = {"type": "integer"}  # noqa: E741
N: dict[str, Any] = {"type": "number"}
B: dict[str, Any] = {"type": "boolean"}
DRAFT7 = "http://json-schema.org/draft-07/schema#"


def one_of(*values: Any) -> dict[str, Any]:
    return {"type": "string", "enum": list(values)}


def many(items: Any, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": items, **more}


def maybe(schema: Any, default: Any = None) -> dict[str, Any]:
    """An optional field as pydantic writes it."""
    return {"anyOf": [schema, {"type": "null"}], "default": default}


def between(kind: Any, low: Any, high: Any) -> dict[str, Any]:
    return {**kind, "minimum": low, "maximum": high}


def tool(required: str = "", /, **properties: Any) -> dict[str, Any]:
    """An object as most tools describe it: nothing is said of other keys."""
    made: dict[str, Any] = {"type": "object", "properties": properties}
    return {**made, "required": required.split()} if required else made


def strict(required: str = "", /, **properties: Any) -> dict[str, Any]:
    """An object that has no other keys, and all of these where nothing else is said."""
    names = required.split() or list(properties)
    return {**tool("", **properties), "required": names, "additionalProperties": False}


_AREA = {"name": S, "area": S, "floor": S}
_TARGET = {**_AREA, "domain": many(S), "device_class": many(S)}
_COLOURS = one_of("red", "green", "blue", "white", "yellow", "purple", "orange", "warm white")

HOME_ASSISTANT: dict[str, Any] = {
    "HassTurnOn": tool(**_TARGET),
    "HassTurnOff": tool(
        **{
            **_TARGET,
            "device_class": many(
                one_of("awning", "blind", "curtain", "door", "garage", "outlet", "switch")
            ),
        }
    ),
    "HassLightSet": tool(
        **_AREA,
        domain=many(one_of("light")),
        color=S,
        temperature={**I, "minimum": 0},
        brightness=between(I, 0, 100),
    ),
    "HassLightColor": tool("color", **_AREA, color=_COLOURS),
    "HassClimateSetTemperature": tool("temperature", **_AREA, temperature=N),
    "HassClimateGetTemperature": tool(**_AREA),
    "HassSetPosition": tool("position", **_TARGET, position=between(I, 0, 100)),
    "HassSetVolume": tool("volume_level", **_AREA, volume_level=between(I, 0, 100)),
    "HassSetVolumeRelative": tool(
        "volume_step", **_AREA, volume_step={"anyOf": [one_of("up", "down"), between(I, -100, 100)]}
    ),
    "HassMediaSearchAndPlay": tool(
        "search_query",
        **_AREA,
        search_query=S,
        media_class=one_of("album", "artist", "movie", "playlist", "track", "tv_show"),
    ),
    "HassMediaPause": tool(**_AREA, domain=many(one_of("media_player"))),
    "HassListAddItem": tool("item name", item=S, name=S),
    "HassListCompleteItem": tool("item name", item={**S, "minLength": 1}, name=S),
    "HassStartTimer": tool(
        name=S,
        hours={**I, "minimum": 0},
        minutes={**I, "minimum": 0},
        seconds={**I, "minimum": 0},
        conversation_command=S,
    ),
    "HassCancelTimer": tool(name=S, area=S, start_hours=I, start_minutes=I, start_seconds=I),
    "HassFanSetSpeed": tool("percentage", **_AREA, percentage=between(I, 0, 100)),
    "HassHumidifierSetpoint": tool("name humidity", name=S, humidity=between(I, 0, 100)),
    "HassHumidifierMode": tool("name mode", name=S, mode=S),
    "HassVacuumStart": tool(name=S, area=S, floor=S, domain=many(one_of("vacuum"))),
    "HassBroadcast": tool("message", message=S),
    "HassGetState": tool(**_TARGET, state=many(S)),
    "HassRespond": tool(response=S),
    "GetLiveContext": {"type": "object", "properties": {}},
    "GetDateTime": {},
    "script.good_night": tool(
        "delay",
        delay={"type": "object", "additionalProperties": True},
        notify=B,
        level=between(N, 0, 1),
    ),
    "calendar_get_events": tool(
        "calendar range",
        calendar=one_of("Home", "Work", "Birthdays"),
        range=one_of("today", "week"),
    ),
    "todo_get_items": tool(
        "todo_list", todo_list=S, status=one_of("needs_action", "completed", "all")
    ),
    "forecast": tool(
        "type", type=one_of("daily", "hourly"), entity_id={**S, "pattern": "^weather\\.[a-z0-9_]+$"}
    ),
}

_EDIT = strict(oldText={**S, "description": "Text to search for"}, newText=S)
_ENTITY = tool("name entityType observations", name=S, entityType=S, observations=many(S))
_RELATION = tool("from to relationType", **{"from": S, "to": S, "relationType": S})
_REPOSITORY = {"owner": S, "repo": S}
_PAGE = {"page": {**N, "minimum": 1}, "perPage": between(N, 1, 100)}
_PATH = {"path": S}


def _zod(schema: dict[str, Any]) -> dict[str, Any]:
    """As the TypeScript SDK sends it."""
    return {**schema, "additionalProperties": False, "$schema": DRAFT7}


MCP: dict[str, Any] = {
    "read_text_file": _zod(tool("path", **_PATH, tail=N, head=N)),
    "read_multiple_files": _zod(tool("paths", paths=many(S, minItems=1))),
    "write_file": _zod(tool("path content", **_PATH, content=S)),
    "edit_file": _zod(
        tool("path edits", **_PATH, edits=many(_EDIT), dryRun={**B, "default": False})
    ),
    "list_directory_with_sizes": _zod(
        tool("path", **_PATH, sortBy={**one_of("name", "size"), "default": "name"})
    ),
    "search_files": _zod(
        tool("path pattern", **_PATH, pattern=S, excludePatterns=many(S, default=[]))
    ),
    "move_file": _zod(tool("source destination", source=S, destination=S)),
    "list_allowed_directories": {"type": "object", "properties": {}, "required": []},
    "create_entities": tool("entities", entities=many(_ENTITY)),
    "create_relations": tool("relations", relations=many(_RELATION)),
    "add_observations": tool(
        "observations", observations=many(strict(entityName=S, contents=many(S)))
    ),
    "open_nodes": tool("names", names=many(S)),
    "fetch": {
        "title": "Fetch",
        **tool("url", url={**S, "format": "uri", "minLength": 1}),
    },
    "fetch_range": tool(
        "url",
        url={**S, "format": "uri"},
        max_length={**I, "exclusiveMinimum": 0, "exclusiveMaximum": 1000000, "default": 5000},
        start_index={**I, "minimum": 0},
        raw=B,
    ),
    "get_current_time": tool("timezone", timezone=S),
    "convert_time": tool(
        "source_timezone time target_timezone",
        source_timezone=S,
        time={**S, "pattern": "^([01]\\d|2[0-3]):[0-5]\\d$"},
        target_timezone=S,
    ),
    "git_status": tool("repo_path", repo_path=S),
    "git_log": tool(
        "repo_path",
        repo_path=S,
        max_count={**I, "default": 10},
        start_timestamp=maybe(S),
        end_timestamp=maybe(S),
    ),
    "git_add": tool("repo_path files", repo_path=S, files=many(S)),
    "git_branch": tool(
        "repo_path branch_type",
        repo_path=S,
        branch_type=one_of("local", "remote", "all"),
        contains=maybe(S),
    ),
    "create_issue": _zod(
        tool(
            "owner repo title",
            **_REPOSITORY,
            title=S,
            body=S,
            assignees=many(S),
            milestone=N,
            labels=many(S),
        )
    ),
    "list_issues": _zod(
        tool(
            "owner repo",
            **_REPOSITORY,
            state=one_of("open", "closed", "all"),
            sort=one_of("created", "updated", "comments"),
            direction=one_of("asc", "desc"),
            since={**S, "format": "date-time"},
            labels=many(S),
            **_PAGE,
        )
    ),
    "create_pull_request": _zod(
        tool(
            "owner repo title head base",
            **_REPOSITORY,
            title=S,
            body=S,
            head=S,
            base=S,
            draft=B,
            maintainer_can_modify=B,
        )
    ),
    "create_pull_request_review": _zod(
        tool(
            "owner repo pull_number body event",
            **_REPOSITORY,
            pull_number=N,
            body=S,
            event=one_of("APPROVE", "REQUEST_CHANGES", "COMMENT"),
            comments=many(
                {"anyOf": [strict(path=S, position=N, body=S), strict(path=S, line=N, body=S)]}
            ),
        )
    ),
    "merge_pull_request": _zod(
        tool(
            "owner repo pull_number",
            **_REPOSITORY,
            pull_number=N,
            merge_method=one_of("merge", "squash", "rebase"),
        )
    ),
    "push_files": _zod(
        tool(
            "owner repo branch files message",
            **_REPOSITORY,
            branch=S,
            files=many(strict(path=S, content=S)),
            message=S,
        )
    ),
    "get_issue": tool("owner repo issue_number", **_REPOSITORY, issue_number={**N, "minimum": 1}),
    "read_query": tool("query", query=S),
    "append_insight": tool("insight", insight=S),
    "brave_web_search": tool(
        "query",
        query={**S, "maxLength": 400},
        count={**between(N, 1, 20), "default": 10},
        offset=between(N, 0, 9),
    ),
    "slack_post_message": tool("channel_id text", channel_id=S, text=S),
    "slack_add_reaction": tool(
        "channel_id timestamp reaction",
        channel_id=S,
        timestamp={**S, "pattern": "^\\d{10}\\.\\d{6}$"},
        reaction=S,
    ),
    "maps_directions": tool(
        "origin destination",
        origin=S,
        destination=S,
        mode=one_of("driving", "walking", "bicycling", "transit"),
    ),
    "maps_elevation": tool(
        "locations",
        locations=many(
            tool(
                "latitude longitude", latitude=between(N, -90, 90), longitude=between(N, -180, 180)
            )
        ),
    ),
    "sequentialthinking": tool(
        "thought nextThoughtNeeded thoughtNumber totalThoughts",
        thought=S,
        nextThoughtNeeded=B,
        thoughtNumber={**I, "minimum": 1},
        totalThoughts={**I, "minimum": 1},
        isRevision=B,
        revisesThought={**I, "minimum": 1},
        branchId=S,
    ),
    "puppeteer_screenshot": tool("name", name=S, selector=S, width=N, height=N, encoded=B),
    "puppeteer_navigate": tool("url", url=S, launchOptions={"type": "object"}, allowDangerous=B),
    "browser_click": _zod(
        tool(
            "element ref",
            element=S,
            ref=S,
            doubleClick=B,
            button=one_of("left", "right", "middle"),
            modifiers=many(one_of("Alt", "Control", "Meta", "Shift")),
        )
    ),
    "browser_fill_form": _zod(
        tool(
            "fields",
            fields=many(
                strict(
                    name=S,
                    type=one_of("textbox", "checkbox", "radio", "combobox", "slider"),
                    ref=S,
                    value=S,
                )
            ),
        )
    ),
    "browser_wait_for": _zod(tool(time=N, text=S, textGone=S)),
    "browser_tabs": _zod(tool("action", action=one_of("list", "new", "close", "select"), index=N)),
    "notion_search": tool(
        query=S,
        filter=tool(
            "property value", property={"const": "object"}, value=one_of("page", "database")
        ),
        page_size=between(I, 1, 100),
    ),
    "zod_record": {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": {"env": {"type": "object", "propertyNames": S, "additionalProperties": S}},
        "required": ["env"],
        "additionalProperties": False,
    },
    "zod_union": {
        "type": "object",
        "properties": {
            "step": {
                "oneOf": [
                    strict(
                        kind={"type": "string", "const": "wait"},
                        seconds={**N, "exclusiveMinimum": 0},
                    ),
                    strict(kind={"type": "string", "const": "say"}, text=S),
                    strict(
                        kind={"type": "string", "const": "call"},
                        service={**S, "pattern": "^\\w+\\.\\w+$"},
                    ),
                ]
            }
        },
        "required": ["step"],
    },
    "kubectl_get": tool(
        "resourceType",
        resourceType=one_of("pods", "nodes", "services"),
        name=S,
        namespace={**S, "default": "default"},
        output=one_of("json", "yaml", "wide"),
        allNamespaces=B,
    ),
    "query_prometheus": tool(
        "query",
        query=S,
        start={**S, "format": "date-time"},
        end={**S, "format": "date-time"},
        step={**S, "pattern": "^[0-9]+[smhd]$"},
    ),
    "create_event": tool(
        "summary start end",
        summary=S,
        start={**S, "format": "date-time"},
        end={**S, "format": "date-time"},
        attendees=many(tool("email", email={**S, "format": "email"}, optional=B)),
        reminders=many(
            tool("method minutes", method=one_of("popup", "email"), minutes=between(I, 0, 40320)),
            maxItems=5,
        ),
    ),
    "send_email": tool(
        "to subject",
        to=many({**S, "format": "email"}, minItems=1),
        cc=many({**S, "format": "email"}),
        subject={**S, "minLength": 1},
        body=S,
    ),
    "run_sql": tool(
        "sql", sql=S, parameters=many({"type": ["string", "number", "boolean", "null"]})
    ),
    "think": tool("thought", thought=S),
}

_MONEY = strict(
    amount={**N, "minimum": 0, "multipleOf": 0.01}, currency={**S, "pattern": "^[A-Z]{3}$"}
)
_ADDRESS = strict(
    "street city country",
    street=S,
    city=S,
    zip={**S, "maxLength": 10},
    country={**S, "minLength": 2, "maxLength": 2},
)
_PET = {
    "type": "object",
    "required": ["name", "photoUrls"],
    "properties": {
        "id": {**I, "format": "int64"},
        "category": {"$ref": "#/components/schemas/Category"},
        "name": {**S, "example": "doggie"},
        "photoUrls": many(S),
        "tags": many({"$ref": "#/components/schemas/Tag"}),
        "status": one_of("available", "pending", "sold"),
    },
    "xml": {"name": "pet"},
}
_COMPONENTS = {
    "components": {
        "schemas": {"Category": tool(id=I, name=S), "Tag": tool(id=I, name=S), "Pet": _PET},
    }
}

BODIES: dict[str, Any] = {
    "pet": {"$ref": "#/components/schemas/Pet", **_COMPONENTS},
    "pets": many({"$ref": "#/components/schemas/Pet"}, maxItems=10) | _COMPONENTS,
    "order": tool(
        id=I,
        petId=I,
        quantity={**I, "format": "int32"},
        shipDate={**S, "format": "date-time"},
        status=one_of("placed", "approved", "delivered"),
        complete=B,
    ),
    "user": tool(
        id=I, username=S, firstName=S, email={**S, "format": "email"}, phone=S, userStatus=I
    ),
    "nullable 3.0": tool(
        "id",
        id={**S, "format": "uuid"},
        note={**S, "nullable": True},
        parent={**S, "format": "uuid", "nullable": True},
    ),
    "exclusive 3.0": tool(
        "ratio",
        ratio={
            **N,
            "minimum": 0,
            "exclusiveMinimum": True,
            "maximum": 1,
            "exclusiveMaximum": False,
        },
    )
    | {"$schema": "http://json-schema.org/draft-04/schema#"},
    "charge": strict(
        "amount currency",
        amount={**I, "minimum": 50},
        currency=one_of("eur", "usd", "gbp"),
        source=S,
        metadata={"type": "object", "additionalProperties": S},
    ),
    "invoice": strict(
        "number date lines total",
        number={**S, "pattern": "^INV-\\d{4,8}$"},
        date={**S, "format": "date"},
        lines=many(strict(text=S, quantity={**I, "minimum": 1}, price=_MONEY), minItems=1),
        total=_MONEY,
    ),
    "customer": strict(
        "name address", name=S, email={**S, "format": "email"}, address=_ADDRESS, vip=B
    ),
    "repository": tool(
        "name",
        name={**S, "pattern": "^[A-Za-z0-9._-]{1,100}$"},
        private=B,
        homepage={**S, "format": "uri"},
        visibility=one_of("public", "private"),
    ),
    "all_of": {
        "allOf": [tool("id", id=I), tool("name", name=S), {"properties": {"id": {"minimum": 1}}}]
    },
    "inherited": {
        "$defs": {"base": tool("kind", kind=S), "extra": tool(colour=_COLOURS)},
        "allOf": [
            {"$ref": "#/$defs/base"},
            {"$ref": "#/$defs/extra"},
            {"properties": {"kind": {"const": "lamp"}}},
        ],
    },
    "geojson point": strict(
        type={"const": "Point"},
        coordinates={
            "type": "array",
            "prefixItems": [between(N, -180, 180), between(N, -90, 90)],
            "items": N,
            "minItems": 2,
            "maxItems": 3,
        },
    ),
    "geojson": {
        "oneOf": [
            tool("type coordinates", type={"enum": ["Point"]}, coordinates=many(N, minItems=2)),
            tool(
                "type coordinates",
                type={"enum": ["LineString"]},
                coordinates=many(many(N, minItems=2), minItems=2),
            ),
        ]
    },
    "patch": many(
        {
            "oneOf": [
                strict(op=one_of("add", "replace", "test"), path=S, value={}),
                strict(op=one_of("remove"), path=S),
                strict(op=one_of("move", "copy"), path=S, **{"from": S}),
            ]
        }
    ),
    "deployment": tool(
        "replicas image",
        replicas=between(I, 0, 100),
        image={**S, "pattern": "^[a-z0-9./-]+(:[\\w.-]+)?$"},
        env=many(tool("name", name={**S, "pattern": "^[A-Z_][A-Z0-9_]*$"}, value=S)),
        labels={"type": "object", "additionalProperties": S, "maxProperties": 8},
    ),
    "cron": tool(
        "minute hour",
        minute={"anyOf": [between(I, 0, 59), {"const": "*"}]},
        hour={"anyOf": [between(I, 0, 23), {"const": "*"}]},
    ),
    "network": tool(
        "address",
        address={**S, "format": "ipv4"},
        gateway={**S, "format": "ipv4"},
        prefix=between(I, 0, 32),
        mac={**S, "pattern": "^([0-9a-f]{2}:){5}[0-9a-f]{2}$"},
    ),
    "opening hours": {
        "type": "object",
        "additionalProperties": many(
            strict(opens={**S, "format": "time"}, closes={**S, "format": "time"})
        ),
        "propertyNames": one_of("mon", "tue", "wed", "thu", "fri", "sat", "sun"),
    },
    "json-rpc": tool(
        "jsonrpc method",
        jsonrpc={"const": "2.0"},
        method=S,
        params={"type": ["object", "array"]},
        id={"type": ["string", "integer", "null"]},
    ),
    "webhook": tool(
        "url events",
        url={**S, "format": "uri", "pattern": "^https://"},
        events=many(one_of("push", "release", "fork"), uniqueItems=True, minItems=1),
        active=B,
    ),
}

_STEP = strict(explanation=S, output=S)
_NODE = {
    "type": "object",
    "properties": {
        "value": I,
        "left": maybe({"$ref": "#/$defs/Node"}),
        "right": maybe({"$ref": "#/$defs/Node"}),
    },
    "required": ["value"],
}
_UI = strict(
    type=one_of("div", "button", "header", "section", "field", "form"),
    label=S,
    children=many({"$ref": "#"}),
    attributes=many(strict(name=S, value=S)),
)

CLASSES: dict[str, Any] = {
    "math steps": strict(steps=many({"$ref": "#/$defs/Step"}), final_answer=S)
    | {"$defs": {"Step": _STEP}},
    "person": tool(
        "name age",
        name={**S, "title": "Name"},
        age={**I, "title": "Age"},
        email=maybe({**S, "format": "email"}),
    )
    | {"title": "Person"},
    "country": tool("name capital languages", name=S, capital=S, languages=many(S)),
    "friends": strict(friends=many({"$ref": "#/$defs/FriendInfo"}))
    | {"$defs": {"FriendInfo": strict(name=S, age=I, is_available=B)}},
    "tree": {"$defs": {"Node": _NODE}, "$ref": "#/$defs/Node"},
    "linked list": {
        "$defs": {"L": strict(value=N, next={"anyOf": [{"$ref": "#/$defs/L"}, {"type": "null"}]})},
        "$ref": "#/$defs/L",
    },
    "ui": _UI,
    "sentiment": strict(
        sentiment=one_of("positive", "negative", "neutral"), confidence=between(N, 0, 1)
    ),
    "literal ints": tool("rating", rating={"enum": [1, 2, 3, 4, 5], "type": "integer"}),
    "literal union": tool(
        "mode",
        mode={
            "anyOf": [{"const": "auto", "type": "string"}, {"const": "off", "type": "string"}, I]
        },
    ),
    "uuid and dates": tool(
        "id created",
        id={**S, "format": "uuid"},
        created={**S, "format": "date-time"},
        day=maybe({**S, "format": "date"}),
        at=maybe({**S, "format": "time"}),
    ),
    "url": tool("url", url={**S, "format": "uri", "minLength": 1, "maxLength": 2083}),
    "tuple": tool(
        "pair", pair={"type": "array", "prefixItems": [I, S], "minItems": 2, "maxItems": 2}
    ),
    "old tuple": {
        "$schema": DRAFT7,
        **tool("pair", pair={"type": "array", "items": [I, S], "minItems": 2, "maxItems": 2}),
    },
    "set": tool("tags", tags=many(S, uniqueItems=True)),
    "map of lists": tool("groups", groups={"type": "object", "additionalProperties": many(I)}),
    "decimal": tool(
        "price", price={"anyOf": [N, {**S, "pattern": "^(?!^[-+.]*$)[+-]?0*\\d*\\.?\\d*$"}]}
    ),
    "constrained": tool(
        "code n",
        code={**S, "minLength": 3, "maxLength": 3},
        n={**I, "exclusiveMinimum": 0, "multipleOf": 5},
    ),
    "discriminated": {
        "$defs": {
            "Cat": tool("pet meows", pet={"const": "cat", "type": "string"}, meows=I),
            "Dog": tool("pet barks", pet={"const": "dog", "type": "string"}, barks=N),
        },
        "discriminator": {
            "mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"},
            "propertyName": "pet",
        },
        "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}],
    },
    "extraction": strict(
        entities=many(
            strict(
                text=S, label=one_of("PERSON", "ORG", "PLACE", "DATE"), start={**I, "minimum": 0}
            )
        ),
        summary=maybe(S),
    ),
    "instructor maybe": tool(
        "result error",
        result=maybe({"$ref": "#/$defs/User"}),
        error={**B, "default": False},
        message=maybe(S),
    )
    | {"$defs": {"User": tool("name age", name=S, age=I)}},
    "instructor many": tool("tasks", tasks=many({"$ref": "#/$defs/Task"}))
    | {"$defs": {"Task": tool("id title", id=I, title=S, depends_on=many(I))}},
    "langchain router": tool("next", next=one_of("researcher", "coder", "FINISH"), reason=S),
    "enum ref": {
        "$defs": {"Colour": one_of("red", "green")},
        **tool("colour", colour={"$ref": "#/$defs/Colour", "default": "red"}),
    },
    "all of ref": {
        "$defs": {"Colour": one_of("red", "green")},
        **tool("colour", colour={"allOf": [{"$ref": "#/$defs/Colour"}], "default": "red"}),
    },
    "json": "json",
    "anything": {},
    "any list": {"type": "array"},
}

ALL: dict[str, Any] = {
    f"{group}: {name}": schema
    for group, schemas in (
        ("home", HOME_ASSISTANT),
        ("mcp", MCP),
        ("body", BODIES),
        ("class", CLASSES),
    )
    for name, schema in schemas.items()
}
OUTSIDE = {"class: decimal"}
"""Those that are refused: the pattern looks ahead."""


def _calls(tools: dict[str, Any]) -> Any:
    shapes = [
        strict(name={"const": name}, arguments=schema or {"type": "object"})
        for name, schema in tools.items()
    ]
    return {"anyOf": shapes}


LARGEST: dict[str, Any] = {
    "a call of any of Home Assistant's tools": _calls(HOME_ASSISTANT),
    "a call of any tool of the MCP servers": _calls(MCP),
    "a thousand entities": strict(
        entity={**S, "enum": [f"light.room_{n}_lamp" for n in range(1000)]}, on=B
    ),
}
