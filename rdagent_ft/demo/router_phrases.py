"""The words of the demo's router task: slots, actions, modifiers, clauses. Data only.

Every action is an imperative, so that each opener fits each of them. Slot words are shared by all
routes on purpose: the topic of a request says nothing about its route, only what is asked does.
"""

from __future__ import annotations

from typing import Literal

from rdagent_ft.values import Frozen

RouteName = Literal["math", "code", "search", "data", "writing", "calendar", "chat"]


class Action(Frozen):
    """One kind of request: its route, the tools it needs, the ways people word it."""

    name: str
    route: RouteName
    tools: tuple[str, ...]
    cores: tuple[str, ...]


class Modifier(Frozen):
    """An extra wish at the end of a request; it adds one tool to the plan."""

    tool: str
    endings: tuple[str, ...]


SLOTS: dict[str, tuple[str, ...]] = {
    "name": (
        "Ana", "Ben", "Carla", "Deniz", "Emil", "Farah", "Goran", "Hana", "Ivo", "Jonas", "Kira",
        "Liam", "Mina", "Nora", "Omar", "Petra", "Quentin", "Rosa", "Samir", "Tara", "Umut", "Vera",
        "Wanda", "Xenia", "Yusuf", "Zoe",
    ),
    "day": ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"),
    "hour": ("8:30", "9:15", "10:00", "11:45", "13:30", "14:00", "15:15", "16:45", "17:30", "19:00"),
    "place": (
        "Lisbon", "Oslo", "Kyoto", "Nairobi", "Quito", "Perth", "Tallinn", "Cork", "Lima", "Bergen",
        "Porto", "Delhi", "Accra", "Malmo",
    ),
    "speech": (
        "Spanish", "German", "Turkish", "Swahili", "Korean", "Greek", "Dutch", "Polish", "Arabic",
        "Hindi",
    ),
    "lang": ("Python", "Rust", "Go", "Java", "Kotlin", "Ruby", "Swift", "Julia"),
    "unit": ("euros", "litres", "metres", "hours", "tickets", "boxes", "kilos", "pages", "miles"),
    "var": ("x", "y", "z", "t", "k", "m"),
    "team": (
        "the sales team", "my class", "the night shift", "our board", "the support desk", "the new interns",
        "the choir", "the garden club", "the neighbours", "our partners", "the clinic", "the print shop",
    ),
    "topic": (
        "the harbour budget", "our spring sale", "the solar roof", "the chess club", "the login page",
        "the tax letter", "the unit tests", "the train strike", "the coffee prices", "the bridge plan",
        "the sensor readings", "the wedding", "the old contract", "the flood maps", "the payroll script",
        "the science fair", "the museum tour", "the bus routes", "the rent increase", "the weekly report",
        "the checkout form", "the apple harvest", "the school trip", "the water meter", "the book fair",
        "the parking app", "the office move", "the patient survey", "the ferry timetable", "the fuel costs",
        "the music festival", "the search index", "the bakery orders", "the marathon", "the data centre",
        "the quiz night", "the ticket queue", "the loan offer", "the heat pump", "the photo archive",
    ),
}  # fmt: skip

ACTIONS: tuple[Action, ...] = (
    Action(name="compute", route="math", tools=("calculator",), cores=(
        "work out {n} times {m}", "add {n} {unit} to {m} {unit} for {topic}",
        "tell me what {p} percent of {n} {unit} comes to", "divide {n} {unit} among {p} people",
        "find how much is left when {m} {unit} go from {n}", "check whether {n} plus {m} is right in {topic}",
        "give me the average of {n}, {m} and {p}", "convert {n} {unit} at a rate of {p} to {m}",
    )),
    Action(name="solve", route="math", tools=("solver",), cores=(
        "solve {p}{var} + {m} = {n} for {var}", "find the {var} that makes {p}{var} equal to {n} minus {m}",
        "get {var} out of {n} = {p}{var} - {m}", "show the roots of {var}^2 - {p}{var} + {m}",
        "factor {var}^2 + {n}{var} + {p}", "give me the unknown {var} when {m} - {var} = {p}",
        "find both numbers that add up to {n} and differ by {p}", "simplify {n}{var} - {p}{var} + {m}",
    )),
    Action(name="plot", route="math", tools=("solver", "plotter"), cores=(
        "draw the curve of y = {p}{var}^2 + {m}", "plot the function {n}{var} - {m} up to {var} = {p}",
        "show me how {p}{var} + {n} looks as a graph", "sketch the line through {p} and {n} with slope {m}",
        "make a graph of {var}^3 - {p}{var} between 0 and {n}", "trace the parabola {var}^2 - {n} for {team}",
        "picture the sine of {p}{var} over {n} degrees",
    )),
    Action(name="write_code", route="code", tools=("editor",), cores=(
        "write a {lang} function for {topic}", "code a small {lang} class that stores {n} {unit}",
        "create a {lang} script about {topic}", "build a {lang} command line tool for {team}",
        "give me {lang} code that prints {topic}", "port the {lang} module of {topic} to {lang2}",
        "add a {lang} method that returns {n} {unit}", "implement a {lang} loop over {topic}",
    )),
    Action(name="fix_code", route="code", tools=("editor", "debugger"), cores=(
        "find the bug in the {lang} code of {topic}", "fix the {lang} crash on line {n}",
        "explain why my {lang} script for {topic} fails", "repair the {lang} loop that never ends at {n}",
        "look at the {lang} stack trace of {topic}", "make the {lang} error about {unit} go away",
        "debug the {lang} class that {name} wrote", "track down the {lang} memory leak in {topic}",
    )),
    Action(name="run_code", route="code", tools=("runner",), cores=(
        "run the {lang} tests of {topic}", "execute the {lang} script {n} times",
        "start the {lang} build for {topic}", "check that the {lang} suite of {name} passes",
        "launch the {lang} program with {n} {unit} as input",
        "measure how fast the {lang} code of {topic} is",
        "try the {lang} snippet from {name} with {p} workers",
    )),
    Action(name="look_up", route="search", tools=("web",), cores=(
        "find out who runs {topic} in {place}", "look up the opening hours for {topic}",
        "search for a hotel in {place} under {n} euros", "tell me what people say about {topic} in {place}",
        "find the phone number of {topic}", "check the weather in {place} on {day}",
        "look online for {unit} sold in {place}", "get me the address of {team} in {place}",
    )),
    Action(name="papers", route="search", tools=("library",), cores=(
        "find {p} papers on {topic}", "list recent studies about {topic} from {place}",
        "look for a thesis that covers {topic}", "get the source that {name} cites on {topic}",
        "search the journals for {topic} since {year}", "check which book of {year} describes {topic}",
        "collect references on {topic} for {team}",
    )),
    Action(name="news", route="search", tools=("web", "feed"), cores=(
        "give me the news on {topic} from {day}", "tell me today's headlines about {topic}",
        "follow the press in {place} on {topic}", "check what the papers in {place} printed on {day}",
        "show the latest stories about {team} in {place}", "find the breaking reports on {topic}",
        "catch me up on this week's events in {place}",
    )),
    Action(name="query", route="data", tools=("sql",), cores=(
        "count the rows about {topic} in the table", "list the top {p} customers from {place}",
        "sum the column of {unit} for {topic}", "show all orders above {n} {unit}",
        "filter the records of {topic} by {day}", "get the median of {unit} per city from our records",
        "join the table of {topic} with the list of {name}", "select every entry from {place} since {year}",
    )),
    Action(name="chart", route="data", tools=("sql", "plotter"), cores=(
        "make a bar chart of {unit} for {topic}", "chart the monthly {unit} in the table of {name}",
        "draw a pie of our customers in {place}", "show a histogram of the column {unit}",
        "plot the records of {topic} by {day}", "turn the table of {topic} into a line chart",
        "build a dashboard of orders from {place}",
    )),
    Action(name="clean", route="data", tools=("cleaner",), cores=(
        "remove the empty rows from the file on {topic}", "fix the dates in the {unit} column",
        "drop the duplicate records of {name}", "fill the gaps in the table about {topic}",
        "clean the spreadsheet that {name} sent", "merge the twin entries from {place}",
        "make the column names of {topic} consistent", "strip the {n} broken lines from the export",
    )),
    Action(name="draft", route="writing", tools=("drafter",), cores=(
        "write a letter to {name} about {topic}", "draft a speech on {topic} for {team}",
        "compose a poem about {topic} in {place}", "make a {n} word post about {topic}",
        "write an apology to {team}", "create a short story set in {place}",
        "phrase an invitation to {topic} for {team}", "write an essay of {p} pages on {topic}",
    )),
    Action(name="shorten", route="writing", tools=("summarizer",), cores=(
        "shorten the text about {topic} to {n} words", "sum up the essay of {name} in {p} lines",
        "give me the gist of the letter on {topic}", "cut the speech for {team} to {p} minutes",
        "condense the {n} page story from {name}", "write a brief abstract of the text on {topic}",
        "boil the article about {place} down to {p} points",
    )),
    Action(name="correct", route="writing", tools=("drafter", "grammar"), cores=(
        "fix the spelling in the letter about {topic}", "check the grammar of the text by {name}",
        "polish the wording of my post on {topic}", "correct the commas in the speech for {team}",
        "make the tone of the letter to {name} friendlier", "proofread {p} pages on {topic}",
        "rewrite the clumsy sentence about {place}",
    )),
    Action(name="book", route="calendar", tools=("calendar",), cores=(
        "book a room for {topic} on {day} at {hour}", "put {topic} on {day} at {hour}",
        "schedule a call with {name} for {hour}", "move the meeting about {topic} to {day}",
        "block {p} hours on {day} for {topic}", "cancel my {hour} appointment with {name}",
        "find a free slot with {name} before {day}", "set up a {p} hour workshop in {place} on {day}",
    )),
    Action(name="remind", route="calendar", tools=("reminder",), cores=(
        "remind me of {topic} on {day}", "wake me at {hour} on {day}", "set an alarm for {hour}",
        "nudge {name} about {topic} at {hour}", "start a timer of {p} minutes for {topic}",
        "do not let me forget {topic} on {day}", "ping {team} on {day} about {topic}",
    )),
    Action(name="agenda", route="calendar", tools=("calendar", "reader"), cores=(
        "tell me what I have on {day} after {hour}", "list my meetings with {name} on {day}",
        "show when {topic} takes place", "check if {day} at {hour} is still open",
        "read me the plan for {day}", "give me all appointments about {topic}",
        "say how many calls {name} has on {day}",
    )),
    Action(name="small_talk", route="chat", tools=(), cores=(
        "tell me a joke about {topic}", "cheer me up after {topic}", "say something nice to {name}",
        "wish me luck for {topic} on {day}", "chat with me about {place} for {p} minutes",
        "give me your honest view on {topic}", "keep me company until {hour}",
        "sing a silly song about {unit}",
    )),
    Action(name="recall", route="chat", tools=("memory",), cores=(
        "recall what I told you about {topic}", "remember that {name} likes {place}",
        "repeat my favourite {unit} joke from {day}", "keep in mind that I moved to {place}",
        "tell me again where {name} lives", "bring up our last talk about {topic}",
        "forget what I said on {day} about {name}", "note that my sister {name} hates {topic}",
    )),
    Action(name="teach", route="chat", tools=("tutor",), cores=(
        "explain {topic} to a child of {p}", "teach me the basics of {topic}",
        "quiz me on {place} with {p} questions", "walk me through {topic} step by step",
        "help me learn {p} words of {speech}", "give me an exercise about {topic}",
        "show me how people in {place} say hello in {speech}",
    )),
)  # fmt: skip

MODIFIERS: tuple[Modifier, ...] = (
    Modifier(tool="mail", endings=(
        "and send it to {name}", "and mail the result to {team}", "then forward it to {name} on {day}",
        "and let {team} have it by mail", "and drop it in the inbox of {name}",
    )),
    Modifier(tool="files", endings=(
        "and save it as a pdf", "and store the result in the {place} folder", "then keep a copy on the drive",
        "and put it in the archive of {name}", "and export it to a file named {name}{n}",
    )),
    Modifier(tool="translator", endings=(
        "and translate it to {speech}", "then say it in {speech} too", "and give {name} the {speech} version",
        "with the answer in {speech}", "so that {team} can read it in {speech}",
    )),
)  # fmt: skip

OPENERS: tuple[str, ...] = (
    "", "", "Please ", "Could you ", "Can you please ", "I need you to ", "Hi, ", "Hey, can you ",
    "Would you kindly ", "Quick one: ", "I would like you to ", "Good morning, could you ", "Now ",
    "If you have a minute, ", "As we said on {day}, ", "For {name}: ", "{name} wants you to ",
    "When you can, ", "Before {hour}, ", "My boss asks you to ",
)  # fmt: skip

# A person must take over: money that went wrong, law, health, safety, or the wish for a person.
HANDOFF_CLAUSES: tuple[str, ...] = (
    "{name} threatens to sue us over it", "I want a real person to look at this",
    "a payment of {n} euros went wrong here", "the doctor must decide about the dose",
    "somebody broke into the account of {name}", "let a human check this first",
    "the lawyer of {name} is waiting for it", "this is an emergency in {place}",
    "the bank has charged {name} {n} euros twice", "{name} got hurt because of it",
    "the police in {place} asked for it", "I will cancel my contract with you over this",
    "put me through to your manager", "there is a court date on {day}",
)  # fmt: skip

# Sounds alike, but no person is needed: the model has to read the clause, not one word of it.
PLAIN_CLAUSES: tuple[str, ...] = (
    "no need to bring in a person", "it is only for practice", "nobody is going to sue anyone",
    "{name} asked me for it on {day}", "the payment of {n} euros has already gone through",
    "the doctor in the story is called {name}", "I am doing this with {team}", "take your time until {hour}",
    "it is about {topic} as well", "the bank in {place} is closed anyway", "{name} is just curious",
    "there is no emergency, {day} is fine", "we talked about it in {place}", "it has no priority at all",
    "your manager knows about it already", "no human has to check it",
)  # fmt: skip

# Words of a log that somebody pasted below a request.
LOG_PARTS: tuple[str, ...] = (
    "INFO worker {n} started", "DEBUG cache miss key={name}{m}", "WARN retry {p} of 10 after {m} ms",
    "INFO GET /{place}/{n} 200", "DEBUG {unit}={n} {var}={m}", "ERROR timeout in pool {p}",
    "INFO flushed {n} rows",
)  # fmt: skip
