"""Words whose direction or tone a reader of market news knows before the first labelled headline.

Written by hand for this project, from no list and no data set. A few thousand labelled headlines
show most of these words once or never; beside its learned inputs, a network is told what is known
of each word, and learns from the labels what that is worth. The signs are of the word alone: profit
and loss, debt and dividend, negation and irony are for the network to combine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

#: What is known of a word, in the order of the columns of :func:`cues`.
CUES = ("direction", "tone", "turn")

# Verbs are given once and inflected; what is irregular, and other kinds of words, as they are.
_RISING_VERBS = """
rise climb gain jump surge soar leap spike spurt zoom advance rebound recover bounce strengthen
firm increase expand grow swell mount accelerate skyrocket rocket double triple quadruple raise lift
boost hike add extend rally escalate appreciate ascend inflate propel push widen multiply
outpace heighten peak ramp vault edge shoot top inch upgrade build
"""
_RISING_WORDS = """
rose risen grew grown up upward upwards upside uptrend upmove uptick upswing upturn higher highest
high highs record rallies rallied rallying shot recovery growth gainers gainer expansion advances
increasing taller bigger more inflow inflows above breakout bull bulls bullish
trebles trebled regains regained reclaims reclaimed resumes flies flew flying elevated elevates
uptrends uptrending
"""
_FALLING_VERBS = """
fall drop decline slip slide slump plunge tumble tank crash sink dip shed lose retreat soften weaken
shrink contract cut slash lower reduce plummet nosedive dive erode erase trim pare ease skid sag
ebb decrease dwindle diminish deflate depreciate collapse halve slow decelerate cool wane slacken
crumble deteriorate drag plumb downgrade narrow bleed cede crater descend dent crack falter lag
"""
_FALLING_WORDS = """
fell fallen slid lost sank sunk shrank shrunk bled cuts slashed down downward downwards downside
downtrend downturn downmove lower lowest low lows bottom selloff rout slowdown correction
pullback drawdown outflow outflows below losers loser bear bears bearish breakdown less fewer
succumbs succumbed wilts wilted wobbles wobbled booking discount discounts
"""
_GOOD_VERBS = """
beat exceed surpass outperform outshine win secure bag profit improve benefit approve succeed
reward cheer shine welcome please impress delight celebrate enjoy love praise thrive flourish
prosper support reassure award earn achieve accomplish resolve settle clinch recommend accumulate
unlock brighten revive stabilise stabilize innovate help buy overcome triumph excel boom heal
"""
_GOOD_WORDS = """
won profits profitable profitability strong stronger strongest strength robust solid healthy sound
good better best great excellent outstanding superb wonderful fantastic amazing brilliant perfect
nice happy glad enjoyable beautiful charming fun funny awesome terrific impressive remarkable
favourite favorite fresh clever superior success successful successfully win wins winner winners
positive optimistic optimism upbeat hopeful hope hopes confident confidence favourable favorable
attractive cheap undervalued opportunity opportunities oversubscribed nod approval dividend bonus
buyback turnaround rosy bright brighter resilient resilience safe secure stable stability easy
overweight outperformer multibagger blockbuster breakthrough milestone boon tailwind tailwinds
windfall demand popular lucrative efficient reliable innovative leading smooth smart worth
sturdy buoyant buoyed exuberant jubilant euphoria relief surplus upgrade undervaluation
basks bumper compelling conducive dovish emboldened encouraging exciting favoured favours glitter
glory helpful judicious okay okays promising sizzling spurs stimulus sops sustainable cleared clears
upholds honest honoured masterpiece engaging hilarious captivating delightful touching thrilling
gripping moving witty elegant warm gem stunning thanks thank grateful yay lol fabulous magnificent
likes liked enjoys fan proud welcomed kind gentle free valuable useful comfortable affordable
"""
_BAD_VERBS = """
miss fail underperform disappoint worry fear concern warn default sue probe investigate accuse
penalise penalize ban reject delay halt suspend struggle suffer hurt hit harm damage threaten
resign quit exit fire scrap cancel abandon postpone block fine charge raid arrest recall complain
blame criticise criticize oppose dispute deny hate annoy bore waste ruin spoil destroy wreck break
stumble mar batter hammer punish pummel slam plague haunt jolt rattle spook shock stun squeeze
burden stress strain pressure hamper hinder derail disrupt dampen weigh wipe worsen sell book dump
stall stagnate freeze dilute restrict jeopardise jeopardize cheat lie steal leak avoid sour
"""
_BAD_WORDS = """
loss losses weak weaker weakest weakness poor poorer bad worse worst awful terrible horrible
dreadful disappointing disappointment sad dull boring stupid ugly mess mediocre tedious lame
pathetic annoying useless broken failure failures bankrupt bankruptcy insolvent insolvency
insolvencies fraud scam scandal scandals penalty penalties lawsuit lawsuits litigation crisis
crises trouble troubled troubles turmoil volatile volatility uncertain uncertainty risk risks risky
negative pessimistic pessimism gloomy gloom bleak grim dire dim fragile subdued sluggish soft
muted lacklustre lackluster tepid flat tough difficult hard harsh painful pain woes woe headwind
headwinds bearishness recession inflation deficit debt debts layoff layoffs strike strikes
shortage shortages shortfall overvalued expensive costly overbought underweight underperformer
caution cautious wary nervous jitters panic anxiety worried worries fears concerns tension tensions
war attack attacks violation violations breach illegal corrupt corruption toxic npa npas junk
hurdle hurdles setback setbacks obstacle problem problems defect defects faulty unable unlikely
impairment writedown writeoff dispute victim disaster accident outage
nonpayment delinquent overdue beaten damp slowdown resistance short overhang
arrears bribery cancer choppy costlier defaulter defaulters defers deferred directionless disruption
disruptions doubt doubts edgy jittery killing killed kills laundering looms loom looming miffed
negatives oversupply oversold rages refuses refused revokes revoked rumours rumour sacks sacked
sanctions shakes shaky slaps slapped stretched tightening tougher unfavourable unfavorable
vulnerable withdraws withdrawn withdrew bitter blues challenges challenging complaints hawkish
dismisses dismissed detains detained jailed jail guilty convicted
flawed predictable clumsy shallow bland forgettable unfunny contrived lifeless messy cheesy
ridiculous nonsense idiotic garbage crap sucks sucked sorry sick tired cry crying angry upset
disgusting rude cold dirty noisy slow late missing unfortunately regret hated disgrace trash
death dead died die dying ill injured hostile bias biased threat threats dangerous danger
"""
_TURNS = """
not no n't never none nothing nobody neither nor without cannot hardly barely scarcely despite
although though but however yet unless except lack lacks lacking stop stops stopped end ends ended
fails failed fail unlikely deny denies denied rule rules off limit limits limited curb curbs offset
offsets erase erases erased reverse reverses reversed snap snaps snapped pare pares pared avoid
avoids avoided halt halts halted prevent prevents prevented too if may might could would
"""


def _verb_forms(verb: str) -> Iterator[str]:
    """The regular forms of a verb, and a few that are no words, which does no harm."""
    stem = verb.removesuffix("e")
    yield from (verb, f"{verb}s", f"{verb}es", f"{stem}ed", f"{stem}ing")
    if stem == verb:
        yield from (f"{verb}{verb[-1]}ed", f"{verb}{verb[-1]}ing")
    if verb.endswith("y"):
        yield from (f"{verb[:-1]}ies", f"{verb[:-1]}ied")


@cache
def known_words() -> dict[str, tuple[float, float, float]]:
    """Each word with its cues: direction and tone -1, 0 or 1, and 1 for what may turn a meaning."""
    signed = (
        (0, 1.0, _RISING_VERBS, _RISING_WORDS),
        (0, -1.0, _FALLING_VERBS, _FALLING_WORDS),
        (1, 1.0, _GOOD_VERBS, _GOOD_WORDS),
        (1, -1.0, _BAD_VERBS, _BAD_WORDS),
        (2, 1.0, "", _TURNS),
    )
    known: dict[str, list[float]] = {}
    for column, sign, verbs, words in signed:
        forms = [form for verb in verbs.split() for form in _verb_forms(verb)]
        for word in (*forms, *words.split()):
            known.setdefault(word, [0.0] * len(CUES))[column] = sign
    return {word: (cues[0], cues[1], cues[2]) for word, cues in known.items()}


@cache
def cue_name(token: str) -> str:
    """What stands for a word where only its cues count, such as ``<+0->``; else the word itself."""
    found = known_words().get(token)
    return token if found is None else "<" + "".join("-0+"[int(cue) + 1] for cue in found) + ">"


def cues(tokens: Sequence[str]) -> np.ndarray:
    """What is known of each token: (len(tokens), len(CUES)) float32, 0 where nothing is."""
    known = known_words()
    nothing = (0.0,) * len(CUES)
    return np.array([known.get(token, nothing) for token in tokens], np.float32).reshape(
        len(tokens), len(CUES)
    )
