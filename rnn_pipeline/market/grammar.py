"""A grammar of financial headlines, and the labelled corpus it writes.

A template is a sentence with slots; what fills a slot has a sign, and the product of all signs is
the label: "costs" (-1) that "fall" (-1) are good news, "fails to" (-1) "win a supply contract"
(+1) is bad, and one factor 0 ("hold steady", "undecided whether to") makes a sentence neutral. So
no word decides alone, and a classifier has to learn what goes with what.

Everything is invented: the companies do not exist, and no sentence reports anything.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import cycle, product

import pandas as pd

LABELS = {-1: "negative", 0: "neutral", 1: "positive"}

#: A smaller corpus would leave templates out.
LEAST_SIZE = 1_000

# Of each phenomenon's templates, every fifth is for testing: no seed moves a template across.
_TEST_EVERY = 5

# Terms by sign, separated by "|". A term that takes no side has the sign 1: it changes no product.
_Signed = Mapping[int, str]
_Term = tuple[str, int]

_RESULTS: _Signed = {
    1: "sales|profits|earnings|margins|orders|bookings|deliveries|shipments|exports|volumes"
    "|passenger numbers|subscriptions|deposits|user numbers|same-store sales|cash reserves",
    -1: "costs|losses|expenses|bad loans|debts|complaints|cancellations",
}
_RESULT: _Signed = {
    1: "revenue|net profit|operating profit|net income|cash flow|order intake|market share|output"
    "|gross margin|operating margin|production|demand|productivity|customer retention",
    -1: "net debt|net loss|operating loss|customer churn|default rate|cost inflation",
}
_EVENTS: _Signed = {
    1: "a record order|a contract win|a patent victory|a broker upgrade|regulatory approval"
    "|strong demand|a takeover bid|upbeat guidance|falling costs|a surprise profit|lower debt",
    -1: "a product recall|a profit warning|a broker downgrade|a data breach|a strike|a lawsuit"
    "|weak demand|an accounting scandal|supply shortages|rising costs|a surprise loss",
}

# Verbs, in the infinitive.
_RISE: _Signed = {
    1: "rise|climb|grow|increase|jump|surge|advance|pick up|edge up",
    -1: "fall|drop|decline|shrink|slide|slump|plunge|ease|edge down",
}
_STAND_STILL: _Signed = {0: "hold steady|stay flat|remain unchanged|stay level|show no change"}
_GAIN: _Signed = {
    1: "rise|gain|climb|jump|rally|surge|soar|leap|advance|firm|edge up|tick up|inch up|move up"
    "|shoot up",
    -1: "fall|drop|slip|sink|retreat|slump|plunge|tumble|slide|weaken|decline|ease|dip|plummet"
    "|edge down",
}
_ADD: _Signed = {1: "add|put on", -1: "lose|shed"}
_ACHIEVE: _Signed = {
    1: "win a supply contract|win a patent case|beat forecasts|return to profit|secure new funding"
    "|gain regulatory approval|land a record order|gain market share|top expectations"
    "|reach break-even",
    -1: "lose a supply contract|lose a patent case|miss forecasts|swing to a loss|lose market share"
    "|face a fraud probe|breach a loan covenant|default on a bond|run short of cash"
    "|disappoint investors",
}
_DECIDE: _Signed = {
    1: "open a second plant|repay a loan early|resume its buyback|hire more staff",
    -1: "close a plant|recall its main product|issue a profit warning|delay its flagship product"
    "|halt production|suspend its buyback",
}
_ADJUST: _Signed = {1: "raise|increase|boost", -1: "cut|reduce|lower"}
_ADJUSTED: _Signed = {
    1: "its dividend|its outlook|its profit target|its growth forecast",
    -1: "its cost forecast|its debt",
}

_SIGNED_SLOTS: dict[str, _Signed] = {
    "metric": _RESULT,
    "metrics": _RESULTS,
    "good metrics": {1: _RESULTS[1]},
    "sum": {
        1: "revenue|net profit|operating profit|net income|cash flow",
        -1: "net debt|net loss|operating loss",
    },
    "sums": {
        1: "sales|profits|earnings|exports|deposits|cash reserves",
        -1: "costs|losses|expenses|bad loans|debts",
    },
    "event": _EVENTS,
    "good event": {1: _EVENTS[1]},
    "bad event": {-1: _EVENTS[-1]},
    "economy": {
        1: "consumer confidence|industrial output|business investment|retail spending"
        "|employment|factory activity|construction output|household income",
        -1: "unemployment|inflation|the trade deficit|the budget deficit|youth unemployment"
        "|the insolvency rate|household debt|the jobless rate",
    },
    "higher": {
        1: "higher|rising|growing|increased|climbing",
        -1: "lower|falling|shrinking|reduced|declining",
        0: "unchanged|flat|steady|stable|similar",
    },
    "increase": {1: "rise|increase|jump|climb|surge", -1: "fall|drop|decline|slump|decrease"},
    "above": {
        1: "above|ahead of|well above",
        -1: "below|short of|well below",
        0: "in line with|level with|close to",
    },
    "beat": {
        1: "beat|top|exceed",
        -1: "miss|trail|fall short of",
        0: "match|meet",
    },
    "up": {1: "up", -1: "down"},
    "up or higher": {1: "up|higher", -1: "down|lower"},
    "up or flat": {1: "up|higher", -1: "down|lower", 0: "flat|little changed|unchanged"},
    "high": {1: "high|peak", -1: "low|trough"},
    "top": {1: "top", -1: "bottom"},
    "best": {1: "best|highest|strongest", -1: "worst|lowest|weakest"},
    "strong start": {
        1: "a strong start|early gains|a strong open",
        -1: "a weak start|early losses|a weak open",
    },
    "recovers": {
        1: "recovers from a weak start|rebounds after early losses|shakes off a weak open",
        -1: "retreats from a strong start|fades after early gains|loses a strong open",
    },
    "drives up": {1: "drives up|pushes up|lifts", -1: "drives down|pushes down|drags down"},
    "advance": {1: "gains|advance|rally", -1: "losses|decline|slide"},
    "streak": {1: "winning streak|run of gains", -1: "losing streak|run of losses"},
    "buying": {1: "buying|demand|appetite", -1: "selling|dumping|profit taking"},
    "buy into": {
        1: "pile into|snap up|rush into|load up on",
        -1: "dump|flee|sell out of|turn away from",
    },
    "lifts": {1: "raises|lifts|increases", -1: "cuts|lowers|trims", 0: "keeps|repeats|confirms"},
    "lifted": {1: "raised|lifted|increased", -1: "cut|lowered|trimmed", 0: "kept|confirmed"},
    "upgrades": {1: "upgrades", -1: "downgrades"},
    "upgraded": {1: "upgraded", -1: "downgraded"},
    "buy or sell": {1: "buy|own|accumulate", -1: "sell|avoid|reduce"},
    "buy": {
        1: "buy|outperform|overweight",
        -1: "sell|underperform|underweight",
        0: "hold|neutral|market perform",
    },
}

_UNSIGNED_SLOTS: dict[str, str] = {
    "gaining or losing": "gaining|losing",
    "period": "the first quarter|the second quarter|the third quarter|the fourth quarter|Q1|Q2|Q3"
    "|Q4|the first half|the second half|the fiscal year|the year to June",
    "quarterly": "first-quarter|second-quarter|third-quarter|fourth-quarter|half-year|annual",
    "month": "January|February|March|April|May|June|July|August|September|October|November"
    "|December",
    "day": "Monday|Tuesday|Wednesday|Thursday|Friday|March 4|July 21|November 12",
    "ordinal": "second|third|fourth|fifth|sixth|seventh|ninth|tenth|12th",
    "role": "chief executive|finance chief|chairman|head of research|chief operating officer"
    "|general counsel|head of sales|treasurer|technology chief|board member",
    "person": "Imra Doll|Tavi Renner|Odile Marsh|Bren Okoro|Lena Vass|Hugo Prell|Mira Tan"
    "|Sol Adeyo|Petra Linn|Arno Keys",
    "broker": "Averly Partners|Stonebeck|Dray & Cole|Kestrel Securities|Lowmark Capital"
    "|Finch Street Research|Ostrava Brokers|Penhale",
    "analysts": "analysts|brokers|strategists|investors|fund managers|traders|economists",
    "sector": "chipmakers|airlines|regional banks|miners|homebuilders|insurers|carmakers|retailers"
    "|drugmakers|utilities|shipping firms|software makers",
    "index": "the blue-chip index|the small-cap index|the technology index|the benchmark index"
    "|the all-share index|the mid-cap index",
    "place": "the north|the capital|the east|the south-west|the coastal region|the euro zone",
    "meeting": "annual meeting|capital markets day|investor conference|shareholder vote"
    "|industry fair|product presentation|webcast",
    "unit": "paper unit|leasing arm|logistics unit|data centre arm|catering business|rail division",
}

# A company's name is two syllables or three, and perhaps a trade; a ticker symbol is three letters.
# There are so many that most stand in a corpus once: rare words are what a classifier trains its
# notion of an unknown word on, and every name on a real headline is one.
_SYLLABLES = (
    "nor|hal|tes|quil|brak|ostr|vel|kar|dun|fen|gal|mer|sor|tam|ulv|ves|wim|yar|zel|bor|cal|dre"
    "|eld|fal|gren|hol|ist|jor|kel|lun",
    "|a|e|i|o|u|an|el|im|or|us",
    "vane|bern|sary|lon|tett|nora|dyne|mont|wick|ley|tek|rix|mark|ford|stal|gard|nova|ric|pell"
    "|tone|den|moor|lane|fix|ville|con|burg|desta|mero|lith",
)
_TRADES = "||||Foods|Energy|Bank|Motors|Pharma|Software|Airlines"
_SYMBOL_LETTERS = "BDFGHJKLMNPQRSTVWXZ"  # no vowels, no C: none of these spells a word or "pct"

# Sentences, by the sign that their own words contribute. "[<event>]" leans the other way than the
# sentence and "(<event>)" the same way; neither decides.
_PLAIN: Mapping[int, tuple[str, ...]] = {
    1: (
        "<company> <metric> <rises> <percent>",
        "<company> <metrics> <rise> <percent> in <period>",
        "<company> <metrics> <move> in <period>",
        "<sums> at <company> <rose> to <amount> in <period>",
        "<metrics> <rise> <percent> at <company>",
        "<company> posts <percent> <increase> in <metric>",
        "<company> reports <percent> <increase> in <metrics> for <period>",
        "<percent> <increase> in <metric> at <company>",
        "<company> reports <higher> <metrics> for <period>",
        "<company> sees <higher> <metrics> next year",
        "<company> posts <higher> <metric> for <period>",
        "<company> <metric> <moved> from a year earlier",
        "<metric> <moves> at <company> for a <ordinal> quarter",
        "in <period>, <metrics> <moved> at <company>",
        "<company> <good metrics> <beat> forecasts",
        "<company> <good metrics> <beat> estimates for <period>",
        "<company> <metrics> come in <above> forecasts",
        "<company> <sum> of <amount> is <above> estimates",
        "<company> expects <sum> of <amount>, <above> last year's",
        "<company> <acts>",
        "<company> <acted> in <period>",
        "in <month>, <company> <acted>",
        "<company> <acts> after (<event>)",
        "<company> <metrics> <rise> after (<event>)",
        "<company> confirms <event>",
        "<company> announces <event>",
        "<company> reports <event> in <place>",
        "<company> shares in focus after <event>",
        "<company> cheered by <good event>",
        "<company> hit by <bad event>",
        "<company> shaken by <bad event>",
        "<company> welcomes <good event>",
    ),
}
_ANALYSTS: Mapping[int, tuple[str, ...]] = {
    1: (
        "<broker> <lifts> price target on <stock> to <price>",
        "<broker> <lifts> target for <stock> after results",
        "<stock> price target <lifted> by <broker>",
        "<broker> <upgrades> <stock> before results",
        "<broker> <upgrades> <sector>, citing (<event>)",
        "<stock> <upgraded> by <broker>",
        "<broker> starts coverage of <stock> at <buy>",
        "<stock> rated <buy> at <broker>",
        "<broker> moves <stock> to <buy>",
        "<broker> adds <stock> to its list of shares to <buy or sell>",
        "<broker> puts <stock> on list of shares to <buy or sell>",
        "<broker> tells clients to <buy or sell> <stock>",
        "<company> forecast for <period> is <above> what <analysts> expected",
        "<company> guides <above> the consensus of <analysts>",
    ),
    -1: (
        "<broker> drops <stock> from its list of shares to <buy or sell>",
        "<broker> no longer tells clients to <buy or sell> <stock>",
    ),
}
_MARKET: Mapping[int, tuple[str, ...]] = {
    1: (
        "<stock> <adds> <percent> to close at <price>",
        "<stock> shares <add> <percent>",
        "shares of <stock> <added> <percent> to <price> on heavy volume",
        "<stock> stock <adds> <percent> to <price>",
        "<stock> <adds> <percent> in thin trading",
        "<stock> shares <add> <percent>, <number> times normal volume",
        "<stock> shares <added> <percent> to finish at <price>",
        "closing report: <stock> <adds> <percent>",
        "<stock> shares <gain> to <price>",
        "<stock> <gains> into the close",
        "<stock> <adds> <percent> after <gaining or losing> <percent> a day earlier",
        "quiet session: <stock> <adds> <percent>",
        "<stock> closes <up or flat> at <price>",
        "<stock> shares end the session <up or flat>",
        "<stock> ends <up or flat> after choppy session",
        "<stock> stock finishes <percent> <up or higher>",
        "<stock> is <up> <percent> at the close",
        "<stock> hits 20-day <high> of <price>",
        "<stock> shares set a one-month <high>",
        "<stock> (<gains>) to one-month <high> of <price>",
        "<stock> reaches its <best> close in 20 sessions",
        "<best> day in a month for <stock>",
        "<stock> closes at its <best> price in <number> weeks",
        "<stock> closes at the <top> of its monthly range",
        "<stock> shares (<add>) <percent> to the <top> of their range",
        "heavy <buying> in <stock>, volume at <number> times the average",
        "<buying> of <stock> shares picks up, volume <number> times normal",
        "heavy (<buying>) <drives up> <stock> <percent>",
        "<analysts> <buy into> <stock>",
        "<analysts> <buy into> <stock>: shares (<add>) <percent>",
        "<analysts> <buy into> <sector> after (<event>)",
        "<stock> <gains> for a <ordinal> straight session",
        "<stock> is <up> for <number> sessions in a row",
        "<stock> shares extend <streak> to <number> sessions",
        "<streak> of <stock> goes on with (<advance>) of <percent>",
        "<stock> on <streak> of <number> sessions",
        "<stock> adds to early <advance> and closes at <price>",
        "<stock> <recovers> to close at <price>",
        "<stock> <recovers>, ends <percent> (<up or higher>)",
        "<stock> ends <percent> <up or higher> despite [<strong start>]",
        "despite [<strong start>], <stock> <adds> <percent>",
        "<index> <adds> <percent>, led by <sector>",
        "<index> closes <up or flat>",
        "<sector> <gain> on (<event>)",
        "<stock> shares <gain> after (<event>)",
        "(<event>) sends <stock> shares <up or higher>",
    ),
    -1: (
        "<stock> ends a <streak> of <number> sessions",
        "<stock> shares break their <streak>",
        "<stock> gives up early <advance>",
        "<stock> reverses early <advance> to close at <price>",
    ),
    0: (
        "<stock> swings between <price> and <price> before the close",
        "volatile session for <stock>, range from <price> to <price>",
        "<stock> shares trade from <price> to <price>",
        "no clear direction for <stock> at <price>",
        "<stock> trades without its dividend from <day>",
        "<stock> shares go ex-dividend, <price> a share",
        "<stock> shares begin trading after <number>-for-1 split",
        "<number>-for-1 split of <stock> shares takes effect",
        "<stock> holds steady around <price>",
        "<stock> little changed before results",
        "quiet session for <stock> ahead of results",
    ),
}
_MACRO: Mapping[int, tuple[str, ...]] = {
    1: (
        "<economy> <moves> in <month>",
        "<economy> <rose> by <percent> in <month>",
        "<economy> unexpectedly <rises> in <place>",
        "economists expect <economy> to <move> in <month>",
        "<economy> <moved> for a <ordinal> month, bureau says",
        "<percent> <increase> in <economy> in <place>",
    ),
    0: (
        "bureau to publish figures on <economy> on <day>",
        "central bank minutes discuss <economy> in <place>",
        "figures on <economy> due on <day>",
    ),
}
_NEUTRAL: Mapping[int, tuple[str, ...]] = {
    0: (
        "<company> names <person> as <role>",
        "<company> names <person> to its board",
        "<person> to join <company> as <role> in <month>",
        "<company> appoints <role> from <partner>",
        "<company> <role> <person> to speak at <meeting>",
        "<company> <role> <person> to retire in <month>",
        "<company> to report <quarterly> results on <day>",
        "<company> to publish <metrics> for <period> on <day>",
        "<company> sets date for <meeting>",
        "<company> sets agenda for <meeting> in <month>",
        "<company> moves its <meeting> to <day>",
        "<company> to hold <meeting> in <place>",
        "<company> to present at <meeting> on <day>",
        "<broker> hosts <sector> at <meeting>",
        "<company> <metrics> due on <day>",
        "what to watch on <day>: <company> <metric>, <economy>",
        "preview: <company> results for <period>",
        "five facts about <company> before <meeting>",
        "<company> shareholders meet on <day> to vote on <role>",
        "<company> publishes annual report",
        "<company> publishes report on <metrics> by region",
        "<company> files accounts for <period>",
        "<company> explains how it counts <metrics>",
        "<company> to present <metrics> by region from <period>",
        "<company> confirms its guidance for <period>",
        "<company> confirms date of <quarterly> results",
        "<company> repeats forecast for <metrics> in <period>",
        "<company> leaves its dividend at <price> a share",
        "<company> leaves its outlook for <metrics> unchanged",
        "<company> renames its <unit>",
        "<company> reviews structure of its <unit>",
        "<company> completes planned sale of <unit> for <amount>",
        "<company> moves head office to <place>",
        "<company> moves its <unit> to <place>",
        "<company> appoints auditor for <period>",
        "<company> and <partner> extend existing supply agreement",
        "<company> and <partner> sign letter of intent",
        "<company> changes ticker symbol to <symbol>",
        "<company> lists bonds worth <amount>",
        "<company> places <amount> bond at par",
        "<company> sells <amount> bond to <broker>",
        "<company> holder <broker> reports <percent> stake",
        "<broker> holds <percent> of <company> shares",
        "<company> declines to comment on <event>",
        "<company> answers questions about <event>",
        "timeline: <company> and <event>",
        "<company>, <event> and what comes next",
        "interview: <company> <role> on <metrics> and <metric>",
        "opinion: what <event> means for <sector>",
    ),
}

# Frames: what "{...}" stands for is in _FILLERS.
_NEGATION: Mapping[int, tuple[str, ...]] = {
    -1: (
        "<company> will not <decide> in <period>",
        "<company> doesn't plan to <decide>",
        "<company> denies that it will <decide>",
        "<company> isn't expected to <act>",
        "<company> is no longer expected to <act>",
        "<company> no longer plans to <decide>",
        "<company> rules out that {its fact}",
        "no sign that {fact}",
        "<analysts> no longer expect that {fact}",
        "<company> fails to <win>",
        "<company> couldn't <win> in <period>",
        "<company> did not <win>",
        "<company> didn't <win> in <month>",
        "<company> avoids <losing>",
        "<company> manages to avoid <losing>",
        "<company> narrowly escapes <bad event>",
        "<company> without <good event> in <period>",
        "lack of <good event> at <company>",
    ),
    1: ("nothing stops <company> from <deciding>",),
}
_HEDGE: Mapping[int, tuple[str, ...]] = {
    1: (
        "<company> may <act> in <period>",
        "<company> could soon <act>",
        "<company> seems likely to <act>",
        "<company> said to <decide>",
        "<company> reportedly about to <decide>",
        "<company> reportedly plans to <decide> in <month>",
        "<analysts> expect that {fact}",
        "rumours that {fact}",
    ),
    -1: (
        "<analysts> doubt that {fact}",
        "<company> unlikely to <act>",
        "few <analysts> believe that {fact}",
        "<analysts> sceptical that <company> can <win>",
        "hopes fade that <company> will <win>",
        "fears fade that <company> will <lose>",
    ),
    0: (
        "<company> undecided whether to <decide>",
        "<company> board to discuss whether to <decide>",
        "<company> won't say whether {its fact}",
        "too early to say whether {fact}",
        "<analysts> split on whether {fact}",
        "question of the day is whether {fact}",
    ),
}
_CONTRAST: Mapping[int, tuple[str, ...]] = {
    1: (
        "{main} despite [<event>]",
        "despite [<event>], {main}",
        "{main} in spite of [<event>]",
        "{main} even as [<metrics> <rise>]",
        "although [<metrics> <rise>], {main}",
        "[<company> <metrics> <rise>], but {main}",
        "[<company> <acts>], yet {main}",
        "{main} even though [<metric> <rises> <percent>]",
        "while [<metric> <rises>], {main}",
    ),
}
_FILLERS: dict[str, tuple[str, ...]] = {
    "fact": ("<company> will <act>", "<metrics> will <rise> at <company> in <period>"),
    "its fact": ("it will <act>", "its <metrics> will <rise>"),
    "main": (
        "<company> <metrics> <rise>",
        "<company> shares close <up or flat>",
        "<company> <acts>",
    ),
}

# Each phenomenon with its share of the corpus: most headlines are plain, as in a newspaper.
_PHENOMENA: dict[str, tuple[float, Mapping[int, tuple[str, ...]]]] = {
    "plain": (0.30, _PLAIN),
    "market": (0.24, _MARKET),
    "neutral": (0.20, _NEUTRAL),
    "analysts": (0.06, _ANALYSTS),
    "macro": (0.04, _MACRO),
    "contrast": (0.06, _CONTRAST),
    "negation": (0.05, _NEGATION),
    "hedge": (0.05, _HEDGE),
}

# Attributions at a headline's end; most have none.
_TAILS = ("",) * 8 + (", sources say", ", filing shows", ": report", " - statement")

_IRREGULAR = {
    "beat": "beat",
    "cut": "cut",
    "fall": "fell",
    "grow": "grew",
    "hold": "held",
    "leap": "leapt",
    "lose": "lost",
    "put": "put",
    "repay": "repaid",
    "rise": "rose",
    "run": "ran",
    "shed": "shed",
    "shrink": "shrank",
    "sink": "sank",
    "slide": "slid",
    "swing": "swung",
    "win": "won",
}
_DOUBLED = {"cut", "dip", "drop", "put", "run", "shed", "slip", "top", "win"}

# How what stands in brackets leans, compared with its sentence.
_LEANING = {"[": -1, "(": 1}


@dataclass(frozen=True)
class _Template:
    """A sentence with slots: its phenomenon, its own sign, its share of the corpus, its split."""

    phenomenon: str
    text: str
    sign: int
    share: float
    split: str

    @property
    def name(self) -> str:
        """What the corpus calls it."""
        return f"{self.phenomenon}: {self.text}"

    @cached_property
    def parts(self) -> tuple[str, ...]:
        """The text, cut before and after every slot and bracket."""
        return tuple(filter(None, re.split(r"(<[^>]+>|[\[\]()])", self.text)))

    @cached_property
    def signs(self) -> tuple[int, ...]:
        """The signs that a sentence can have."""
        deciding = re.sub(r"\[.*?\]|\(.*?\)", "", self.text)
        found = {self.sign}
        for slot in re.findall(r"<([^>]+)>", deciding):
            found = {sign * other for sign in found for _, other in _lexicon()[slot]}
        return tuple(sorted(found))


def labelled_corpus(size: int = 8_000, seed: int = 0) -> pd.DataFrame:
    """Write distinct labelled headlines; every template makes all its labels equally often.

    Templates are split, not rows: none stands in both splits, and about a fifth of each
    phenomenon's is for testing. The seed chooses the words, never the split.

    Returns:
        ``size`` rows in random order: ``headline``, ``label`` ("negative", "neutral", "positive"),
        ``split`` ("train", "test") and ``template`` ("phenomenon: sentence with <slots>").

    Raises:
        ValueError: ``size`` is less than :data:`LEAST_SIZE`, or more than a template can fill.
    """
    if size < LEAST_SIZE:
        raise ValueError(f"size must be at least {LEAST_SIZE}, for all templates; got {size}")
    rng = random.Random(seed)
    rows: dict[str, tuple[str, str, str]] = {}
    wanted = 0.0
    for template in _templates():
        wanted += size * template.share
        for headline, sign in _sentences(template, round(wanted) - len(rows), rows, rng):
            rows[headline] = LABELS[sign], template.split, template.name
    corpus = pd.DataFrame(
        [(headline, *row) for headline, row in rows.items()],
        columns=["headline", "label", "split", "template"],
    )
    return corpus.iloc[rng.sample(range(size), size)].reset_index(drop=True)


@cache
def _templates() -> tuple[_Template, ...]:
    found = []
    for phenomenon, (share, frames) in _PHENOMENA.items():
        texts = [
            (text, sign)
            for sign, group in frames.items()
            for frame in group
            for text in _fill(frame)
        ]
        for number, (text, sign) in enumerate(texts, start=1):
            split = "train" if number % _TEST_EVERY else "test"
            found.append(_Template(phenomenon, text, sign, share / len(texts), split))
    return tuple(found)


def _fill(frame: str) -> Iterator[str]:
    """The frame with every combination of fillers."""
    fields = re.findall(r"{([\w ]+)}", frame)
    for fillers in product(*(_FILLERS[field] for field in fields)):
        yield frame.format(**dict(zip(fields, fillers, strict=True)))


def _sentences(
    template: _Template, wanted: int, taken: Mapping[str, object], rng: random.Random
) -> Iterator[tuple[str, int]]:
    """Sentences that the caller has not taken yet, with their signs, each sign equally often.

    The caller must take each sentence before it asks for the next.
    """
    made = 0
    for _ in range(100 * wanted):
        sign = template.signs[made % len(template.signs)]
        headline = _sentence(template, sign, rng)
        if headline and headline not in taken:
            made += 1
            yield headline, sign
        if made == wanted:
            return
    raise ValueError(f"{template.name!r} has fewer than {wanted} sentences: ask for a smaller size")


def _sentence(template: _Template, wanted: int, rng: random.Random) -> str | None:
    """One random sentence, or None if its sign is not the wanted one or it repeats a term."""
    lexicon = _lexicon()
    company = rng.choice(lexicon["company"])
    words: list[str] = []
    signs = {"": template.sign}
    within = ""
    for part in template.parts:
        if part in _LEANING:
            within = part
        elif part in ("]", ")"):
            within = ""
        elif not part.startswith("<"):
            words.append(part)
        else:
            slot = part[1:-1]
            # A company named twice is the same one; anything else differs in each place.
            term, sign = company if slot == "company" else rng.choice(lexicon[slot])
            if term in words and slot != "company":
                return None
            words.append(term)
            signs[within] = signs.get(within, 1) * sign
    if signs.pop("") != wanted:
        return None
    # A neutral sentence leans neither way, so whatever stands in brackets suits it.
    if wanted and any(sign != wanted * _LEANING[bracket] for bracket, sign in signs.items()):
        return None
    text = "".join(words) + rng.choice(_TAILS)
    return text[0].upper() + text[1:]


@cache
def _lexicon() -> dict[str, tuple[_Term, ...]]:
    """What may fill each slot."""
    rise, stand_still, gain, add = map(_terms, (_RISE, _STAND_STILL, _GAIN, _ADD))
    decisions = _terms(_DECIDE) + tuple(
        (f"{verb} {what}", sign * other)
        for (verb, sign), (what, other) in product(_terms(_ADJUST), _terms(_ADJUSTED))
    )
    deeds = _terms(_ACHIEVE) + decisions
    lexicon = {slot: _terms(signed) for slot, signed in _SIGNED_SLOTS.items()}
    for forms, verbs in {
        ("rise", "rises", "rose", "rising"): rise,
        ("move", "moves", "moved", "moving"): rise + stand_still,
        ("gain", "gains", "gained", "gaining"): gain,
        ("add", "adds", "added", "adding"): gain + add,
        ("act", "acts", "acted", "acting"): deeds,
        ("decide", "decides", "decided", "deciding"): decisions,
        ("win", "wins", "won", "winning"): tuple(term for term in deeds if term[1] > 0),
        ("lose", "loses", "lost", "losing"): tuple(term for term in deeds if term[1] < 0),
    }.items():
        for number, form in enumerate(forms):
            lexicon[form] = tuple((_inflect(verb)[number], sign) for verb, sign in verbs)
    names = [
        "".join(syllables).title()
        for syllables in product(*(part.split("|") for part in _SYLLABLES))
    ]
    companies = [
        f"{name} {trade}".strip()
        for name, trade in zip(names, cycle(_TRADES.split("|")), strict=False)
    ]
    symbols = ["".join(letters) for letters in product(_SYMBOL_LETTERS, repeat=3)]
    unsigned = {slot: terms.split("|") for slot, terms in _UNSIGNED_SLOTS.items()} | {
        "company": companies,
        "partner": companies,
        "symbol": symbols,
        "stock": companies + symbols,
        "number": [str(number) for number in range(2, 10)],
        "percent": [
            f"{tenths / 10:g}{unit}"
            for tenths in range(2, 150)
            for unit in ("%", " pct", " percent")
        ],
        "price": [f"${cents / 100:.2f}" for cents in range(410, 60_000, 137)],
        "amount": [
            f"{currency}{tenths / 10:g} {unit}"
            for currency, unit, tenths in product(
                "$€£", ("million", "billion", "bn"), range(11, 990, 7)
            )
        ],
    }
    return lexicon | {slot: tuple((term, 1) for term in terms) for slot, terms in unsigned.items()}


def _terms(signed: _Signed) -> tuple[_Term, ...]:
    return tuple((term, sign) for sign, terms in signed.items() for term in terms.split("|"))


def _inflect(phrase: str) -> tuple[str, ...]:
    """Infinitive, third person, past and gerund of a phrase that starts with its verb."""
    verb, *rest = phrase.split(" ")
    third = f"{verb}es" if verb.endswith(("s", "x", "ch", "sh")) else f"{verb}s"
    stem = f"{verb}{verb[-1]}" if verb in _DOUBLED else verb.removesuffix("e")
    forms = verb, third, _IRREGULAR.get(verb, f"{stem}ed"), f"{stem}ing"
    return tuple(" ".join([form, *rest]) for form in forms)
