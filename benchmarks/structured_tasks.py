"""What the structured answers of a real model are measured on: schemas, each with a request.

KNOWN are the tasks that the driver was made with. HELD_OUT were written before anybody saw how it does on
them, and UNSEEN before anything was mended after that.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tests.schema.tools import ALL, B, I, N, S, between, many, maybe, one_of, strict, tool


class Task(NamedTuple):
    """A schema, and what a user says."""

    name: str
    schema: Any
    request: str


_KNOWN = {
    "home: HassTurnOn": "Turn on the lamp in the kitchen.",
    "home: HassLightSet": "Set the desk light in the office to 40 percent.",
    "home: HassLightColor": "Make the bedroom light blue.",
    "home: HassClimateSetTemperature": "Heat the living room to 21.5 degrees.",
    "home: HassSetPosition": "Open the blinds in the study halfway.",
    "home: HassSetVolume": "Set the volume of the radio to 30.",
    "home: HassSetVolumeRelative": "Make the television a bit louder.",
    "home: HassMediaSearchAndPlay": "Play the album Kind of Blue in the living room.",
    "home: HassListAddItem": "Put milk on the shopping list.",
    "home: HassStartTimer": "Set a timer for ten minutes for the pasta.",
    "home: HassFanSetSpeed": "Run the bathroom fan at 75 percent.",
    "home: HassBroadcast": "Tell everybody that dinner is ready.",
    "home: HassGetState": "Is the garage door open?",
    "home: calendar_get_events": "What is on my work calendar today?",
    "home: forecast": "What is the weather going to be hour by hour?",
    "mcp: read_text_file": "Show me the first 20 lines of /etc/hosts.",
    "mcp: read_multiple_files": "Read notes.txt and todo.txt.",
    "mcp: write_file": "Write hello world to /tmp/hello.txt.",
    "mcp: edit_file": "In main.py replace foo with bar.",
    "mcp: search_files": "Find all Python files below /home/anna but not in node_modules.",
    "mcp: create_entities": "Remember that Anna is a person who likes tea.",
    "mcp: create_relations": "Remember that Anna works at Contoso.",
    "mcp: fetch": "Get the page https://www.example.com/news.",
    "mcp: convert_time": "What is 14:30 in Berlin in Tokyo time?",
    "mcp: git_log": "Show the last five commits of /home/anna/project.",
    "mcp: create_issue": "Open an issue in octo/cat: the login page is blank.",
    "mcp: list_issues": "List the open issues of octo/cat, the newest first.",
    "mcp: create_pull_request_review": "Approve pull request 12 of octo/cat.",
    "mcp: brave_web_search": "Search the web for cheap flights to Lisbon, five results.",
    "mcp: maps_directions": "How do I walk from Alexanderplatz to the Reichstag?",
    "mcp: sequentialthinking": "Think step by step about how to move a piano.",
    "mcp: browser_click": "Double-click the button Save, ref e12.",
    "mcp: kubectl_get": "List the pods in the namespace web.",
    "mcp: query_prometheus": "Give the rate of requests from noon to one on 2026-03-01, per minute.",
    "mcp: create_event": "Meet bob@example.com on 2026-05-04 from 10:00 to 11:00 UTC about the budget.",
    "mcp: send_email": "Write to bob@example.com that the meeting is moved to Friday.",
    "body: order": "Order two of pet 7, placed, to be shipped on 2026-06-01 at noon.",
    "body: user": "Anna Berg, user annab, anna@example.com, phone 555-0101.",
    "body: charge": "Charge 25 euros to card tok_visa.",
    "body: invoice": "Invoice INV-2041 of 2026-02-03: two hours of work at 80 euros.",
    "body: customer": "Bo Li, bo@example.com, 12 Hill Road, Leeds, LS1 4DY.",
    "body: network": "The address is 192.168.1.20, the gateway 192.168.1.1, the prefix 24.",
    "body: webhook": "Call https://example.com/hook at each push and each release.",
    "class: math steps": "Solve 8x + 7 = -23.",
    "class: person": "Jason is 25 years old.",
    "class: country": "Tell me about Canada.",
    "class: friends": "I have two friends: Ollama, 22 years old and busy, and Alonso, 23, who is at home.",
    "class: sentiment": "I love this phone, the battery lasts for days!",
    "class: constrained": "The code is ABC and the number is 25.",
    "class: extraction": "Tim Cook visited Paris for Apple on Monday.",
}

_HELD_OUT = {
    "home: HassTurnOff": "Turn off all the outlets on the first floor.",
    "home: HassClimateGetTemperature": "How warm is it in the nursery?",
    "home: HassListCompleteItem": "I have bought the bread, tick it off the shopping list.",
    "home: HassCancelTimer": "Cancel the five minute timer.",
    "home: HassHumidifierSetpoint": "Set the bedroom humidifier to 55 percent.",
    "home: HassVacuumStart": "Let the robot clean the hall.",
    "home: script.good_night": "Run good night with a delay of 5 minutes at half brightness.",
    "home: todo_get_items": "What is still open on my chores list?",
    "mcp: list_directory_with_sizes": "List the largest files in /var/log.",
    "mcp: add_observations": "Note about Anna that she plays the cello and lives in Oslo.",
    "mcp: open_nodes": "What do you know about Anna and Contoso?",
    "mcp: fetch_range": "Fetch the first 2000 characters of https://example.org/spec.html, raw.",
    "mcp: git_add": "Stage README.md and setup.py in /srv/app.",
    "mcp: create_pull_request": "Open a draft pull request in octo/cat from fix-login to main: Fix login.",
    "mcp: merge_pull_request": "Squash and merge pull request 31 of octo/cat.",
    "mcp: get_issue": "Show me issue 404 of octo/cat.",
    "mcp: read_query": "How many users signed up in March?",
    "mcp: slack_add_reaction": "React with a thumbs up to message 1712345678.123456 in channel C042.",
    "mcp: maps_elevation": "How high is the place at 46.55 north, 7.98 east?",
    "mcp: browser_fill_form": "Type anna in the textbox Name, ref e3, and tick the checkbox Agree, ref e4.",
    "mcp: browser_tabs": "Close the third tab.",
    "mcp: notion_search": "Find the page about the budget in Notion.",
    "mcp: zod_union": "Wait for 3 seconds.",
    "body: pet": "Add a dog called Rex, with the photo https://example.com/rex.jpg, it is available.",
    "body: nullable 3.0": "The id is 3f2504e0-4f89-41d3-9a0c-0305e82c3301 and there is no note.",
    "body: geojson point": "The point is at longitude 13.4 and latitude 52.5.",
    "body: deployment": "Run three replicas of nginx:1.25 with the variable PORT set to 8080.",
    "body: opening hours": "We open at 09:00 and close at 17:30 on Monday and Tuesday.",
    "class: linked list": "Make a list of 1, then 2, then 3.",
    "class: uuid and dates": (
        "The record 9b2d1c1e-0c3a-4c59-8a56-1f0e6f2a7d10 was made on 2026-01-15 at 08:30 UTC."
    ),
    "class: discriminated": "The dog barks 3 times.",
    "class: instructor many": "Task 1 is to buy paint, task 2 is to paint the wall, which needs task 1.",
}
_RECIPE = strict(
    "title servings ingredients steps",
    title=S,
    servings=between(I, 1, 20),
    ingredients=many(strict(name=S, amount=N, unit=one_of("g", "ml", "piece", "spoon"))),
    steps=many(S, minItems=1),
)
_HELD_OUT_OWN = {
    "recipe": (_RECIPE, "Pancakes for 4: 200 g flour, 300 ml milk, 2 eggs. Mix all and fry."),
    "support ticket": (
        strict(
            "category priority summary",
            category=one_of("billing", "bug", "feature", "account", "other"),
            priority=one_of("low", "normal", "high", "urgent"),
            summary={**S, "maxLength": 120},
            customer_id={**S, "pattern": "^C-[0-9]{5}$"},
        ),
        "Customer C-00412 cannot log in since this morning and is very angry.",
    ),
    "flight": (
        strict(
            "origin destination date passengers",
            origin={**S, "pattern": "^[A-Z]{3}$"},
            destination={**S, "pattern": "^[A-Z]{3}$"},
            date={**S, "format": "date"},
            passengers=between(I, 1, 9),
            cabin=one_of("economy", "business", "first"),
        ),
        "Two people from LHR to JFK on 2026-07-04 in economy.",
    ),
    "movie review": (
        tool(
            "title rating tags recommended",
            title=S,
            rating={"enum": [1, 2, 3, 4, 5]},
            tags=many(one_of("funny", "sad", "long", "exciting"), maxItems=3, uniqueItems=True),
            recommended=B,
        ),
        "Metropolis was long but exciting, five stars, everybody should see it.",
    ),
    "bank transfer": (
        strict(
            "to amount reference",
            to={**S, "pattern": "^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$"},
            amount={**N, "exclusiveMinimum": 0, "multipleOf": 0.01},
            reference={**S, "maxLength": 35},
            on=maybe({**S, "format": "date"}),
        ),
        "Send 49.90 to DE89370400440532013000 for the invoice 77.",
    ),
    "server": (
        strict(host=S, port=between(I, 1, 65535), tls=B, protocol=one_of("http", "grpc", "mqtt")),
        "The broker runs MQTT on mq.example.com, port 8883, encrypted.",
    ),
    "contact": (
        strict(
            "name emails",
            name=strict(first=S, last=S),
            emails=many({**S, "format": "email"}, minItems=1, maxItems=3),
            birthday=maybe({**S, "format": "date"}),
        ),
        "Grace Hopper was born on 1906-12-09, write to grace@example.com or hopper@example.org.",
    ),
    "alarm": (
        tool(
            "time days",
            time={**S, "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$"},
            days=many(one_of("mon", "tue", "wed", "thu", "fri", "sat", "sun"), minItems=1),
            label=S,
        ),
        "Wake me at 06:45 on Monday, Wednesday and Friday for running.",
    ),
    "colour": (
        strict(name=S, hex={**S, "pattern": "^#[0-9a-fA-F]{6}$"}, rgb=many(between(I, 0, 255))),
        "Pure red is #ff0000, in numbers 255, 0 and 0.",
    ),
    "product": (
        strict(
            "sku name price stock",
            sku={**S, "pattern": "^[A-Z]{2}-[0-9]{4}$"},
            name={**S, "minLength": 1},
            price={**N, "minimum": 0},
            stock={**I, "minimum": 0},
            size={"anyOf": [one_of("S", "M", "L"), I, {"type": "null"}]},
        ),
        "The T-shirt TS-1001 costs 19.95, there are 40 of size M.",
    ),
    "quiz": (
        strict(
            question=S,
            options={**many(S), "minItems": 4, "maxItems": 4},
            answer=between(I, 0, 3),
        ),
        "Make a quiz question about the capital of Australia.",
    ),
    "weather": (
        strict(
            city=S,
            celsius=between(N, -90, 60),
            sky=one_of("clear", "cloudy", "rain", "snow"),
            wind=strict(speed={**N, "minimum": 0}, direction=one_of("N", "E", "S", "W")),
        ),
        "It is 12 degrees in Bergen with rain and a west wind of 30.",
    ),
    "translation": (
        strict(
            source={**S, "pattern": "^[a-z]{2}$"},
            target={**S, "pattern": "^[a-z]{2}$"},
            text=S,
            translation=S,
        ),
        "Translate good morning from English to French.",
    ),
    "filter": (
        {
            "$defs": {
                "F": {
                    "anyOf": [
                        strict(
                            field=S, op=one_of("=", "<", ">"), value={"type": ["string", "number"]}
                        ),
                        strict(**{"and": many({"$ref": "#/$defs/F"}, minItems=2)}),
                    ]
                }
            },
            "$ref": "#/$defs/F",
        },
        "Only people older than 30.",
    ),
    "rating": (
        strict(score=between(N, 0, 10), reasons=many(S, minItems=1, maxItems=3)),
        "The hotel was clean and quiet, but the breakfast was poor: 7.5 of 10.",
    ),
    "version": (
        strict(
            name=S,
            version={**S, "pattern": "^\\d+\\.\\d+\\.\\d+$"},
            released={**S, "format": "date"},
        ),
        "Release 2.4.1 of the parser came out on 2025-11-03.",
    ),
    "meeting": (
        tool(
            "title start duration",
            title=S,
            start={**S, "format": "date-time"},
            duration={**I, "minimum": 5, "multipleOf": 5},
            room=maybe(one_of("Oak", "Pine", "Elm")),
            attendees=many(S),
        ),
        "Plan the sprint review on 2026-03-09 at 14:00 UTC for 45 minutes in Oak with Ana and Raj.",
    ),
    "yes or no": ({"type": "boolean"}, "Is the sky blue?"),
}

_UNSEEN = {
    "home: HassMediaPause": "Pause the music in the kitchen.",
    "home: HassHumidifierMode": "Put the office humidifier in sleep mode.",
    "home: HassRespond": "Say hello to the guests.",
    "mcp: move_file": "Rename /tmp/a.txt to /tmp/b.txt.",
    "mcp: git_branch": "Which remote branches of /srv/app contain abc123?",
    "mcp: push_files": "Push a.txt with the content hello to main of octo/cat: Add a.txt.",
    "mcp: slack_post_message": "Write in C042 that the build is green.",
    "mcp: run_sql": "Get the orders of customer 42.",
    "body: repository": "Make the private repository tea-shop with the page https://tea.example.com.",
    "body: cron": "Every day at half past six.",
    "body: json-rpc": "Call the method subtract with 42 and 23, id 1.",
    "class: set": "The tags are red, green and blue.",
    "class: langchain router": "The code is written and tested, what is next?",
}
_UNSEEN_OWN = {
    "parcel": (
        strict(
            tracking={**S, "pattern": "^[A-Z]{2}[0-9]{9}[A-Z]{2}$"},
            status=one_of("created", "in transit", "delivered", "lost"),
            weight={**N, "exclusiveMinimum": 0},
        ),
        "Parcel RR123456789NL of 1.2 kg has been delivered.",
    ),
    "book": (
        strict(
            "title authors year",
            title=S,
            authors=many(S, minItems=1),
            year=between(I, 1400, 2100),
            isbn=maybe({**S, "pattern": "^[0-9]{13}$"}),
        ),
        "Good Omens by Terry Pratchett and Neil Gaiman came out in 1990.",
    ),
    "reservation": (
        strict(
            "name guests when",
            name=S,
            guests=between(I, 1, 12),
            when={**S, "format": "date-time"},
            wishes=many(one_of("window", "quiet", "high chair")),
        ),
        "A table for six on 2026-08-21 at 19:30 UTC for Moreau, at the window.",
    ),
    "job": (
        strict(
            title=S,
            remote=B,
            salary=strict(
                low={**I, "minimum": 0}, high={**I, "minimum": 0}, currency=one_of("EUR", "USD")
            ),
        ),
        "We look for a data engineer, remote, 60000 to 75000 euros.",
    ),
    "firewall rule": (
        strict(
            "action protocol port",
            action=one_of("allow", "deny"),
            protocol=one_of("tcp", "udp"),
            port=between(I, 1, 65535),
            source=maybe({**S, "format": "ipv4"}),
        ),
        "Allow SSH from 10.0.0.5.",
    ),
    "workout": (
        strict(
            date={**S, "format": "date"},
            exercises=many(
                strict(name=S, sets=between(I, 1, 10), reps=between(I, 1, 100)), minItems=1
            ),
        ),
        "On 2026-02-11 I did 3 sets of 12 squats and 4 sets of 8 pull-ups.",
    ),
    "language": (
        strict(code=one_of("en", "de", "fr", "es", "it"), confidence=between(N, 0, 1)),
        "Which language is this: Wo ist der Bahnhof?",
    ),
    "choice": (one_of("stairs", "lift", "escalator"), "I cannot walk, how do I get up?"),
    "numbers": (many(I, minItems=3, maxItems=3), "Give the first three square numbers."),
    "shape": (
        {
            "oneOf": [
                strict(shape={"const": "circle"}, radius={**N, "exclusiveMinimum": 0}),
                strict(shape={"const": "square"}, side={**N, "exclusiveMinimum": 0}),
            ]
        },
        "A circle of radius 2.5.",
    ),
    "settings": (
        tool(theme=one_of("dark", "light"), fontSize=between(I, 8, 32), autosave=B, language=S),
        "Use the dark theme with font size 14.",
    ),
    "metadata": (
        strict(
            "id labels",
            id={**S, "format": "uuid"},
            labels={"type": "object", "additionalProperties": S},
        ),
        "Label 0f8fad5b-d9cb-469f-a165-70867728950e with team blue.",
    ),
}


def _tasks(requests: dict[str, str], own: dict[str, tuple[Any, str]]) -> tuple[Task, ...]:
    tasks = [Task(name, ALL[name], request) for name, request in requests.items()]
    return (*tasks, *(Task(name, *pair) for name, pair in own.items()))


KNOWN = _tasks(_KNOWN, {})
HELD_OUT = _tasks(_HELD_OUT, _HELD_OUT_OWN)
UNSEEN = _tasks(_UNSEEN, _UNSEEN_OWN)
LISTS = {"known": KNOWN, "held-out": HELD_OUT, "unseen": UNSEEN}
