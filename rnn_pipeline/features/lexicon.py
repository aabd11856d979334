"""What a reader of market news knows of words and phrases before the first labelled headline.

Written by hand for this project, from no published list; what was missing was looked for in
training headlines, never in those that models are tested on. A few thousand labelled headlines show
most of these words once or never; beside its learned inputs, a network is told what is known of
each word, and learns from the labels what that is worth. How words work together, negation and
irony are for the models to combine, except for phrases that everyone knows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache

import numpy as np

#: What is known of a word, in the order of the columns of :func:`cues`: where it points, how it
#: sounds, whether it may turn a meaning; whether a rise of what it names is good news; whether it
#: advises to buy or to sell, tells what somebody does, or leaves open whether it will be.
CUES = ("direction", "tone", "turn", "thing", "advice", "plain", "doubt")
TONE, TURN = CUES.index("tone"), CUES.index("turn")

#: The first of them, which hold for the word itself, whatever stands beside it.
OWN_CUES = 3

# Verbs are given once and inflected; what is irregular, and other kinds of words, as they are.
_RISING_VERBS = """
rise climb gain jump surge soar leap spike spurt zoom advance rebound recover bounce strengthen firm
increase expand grow swell mount accelerate skyrocket rocket double triple quadruple raise lift
boost hike add extend rally escalate appreciate ascend inflate propel push widen multiply outpace
heighten peak ramp vault edge shoot top inch upgrade build attain scale zip vroom gallop sprint race
regain recoup reclaim retest perk harden quicken mushroom balloon intensify up rebuild creep hasten
steepen uplift lengthen lighten enhance augment broaden deepen thicken flare outrun
"""
_RISING_WORDS = """
rose risen grew grown up upward upwards upside uptrend upmove uptick upswing upturn higher highest
high highs record rallies rallied rallying shot recovery growth gainers gainer expansion advances
increasing taller bigger more inflow inflows above breakout bull bulls bullish trebles trebled
regains regained reclaims reclaimed resumes flies flew flying elevated elevates uptrends uptrending
north northward northwards bounceback appreciation firmer firmly stronger costlier dearer pricier
ballooning uplift lifetime twofold threefold fourfold fivefold manifold multifold doubling trebling
quicker faster longest tallest upticks upsides topped increment increments escalation acceleration
expansionary inflationary uptake upbeat premium premiums hikes hiked larger heavier hotter greater
additions addition overweight upmoves upgradation overhang
"""
_FALLING_VERBS = """
fall drop decline slip slide slump plunge tumble tank crash sink dip shed lose retreat soften weaken
shrink contract cut slash lower reduce plummet nosedive dive erode erase trim pare ease skid sag ebb
decrease dwindle diminish deflate depreciate collapse halve slow decelerate cool wane slacken
crumble deteriorate drag plumb downgrade narrow bleed cede crater descend dent crack falter lag fade
thin evaporate vanish wither shave moderate taper recede unwind offload liquidate correct melt
buckle drift subside stumble topple backslide relinquish wipe drain deplete fizzle underperform
devalue depress curtail compress downsize dilute discount tame abate dissipate flatten slim sap
weigh
"""
_FALLING_WORDS = """
fell fallen slid lost sank sunk shrank shrunk bled cuts slashed down downward downwards downside
downtrend downturn downmove lower lowest low lows bottom selloff rout slowdown correction pullback
drawdown outflow outflows below losers loser bear bears bearish breakdown less fewer succumbs
succumbed wilts wilted wobbles wobbled booking discount discounts south southward southwards softer
cheaper downtick downticks moderation deceleration meltdown bloodbath carnage mayhem freefall
erosion contraction depreciation devaluation dilution derating derated corrections downtrends
reduction reductions cutback cutbacks thinner slimmer smaller slower slackness sluggishness selloffs
drawdowns disinflation deflation shortfall decliners lull lowers halved halves underwater bottomed
"""
_GOOD_VERBS = """
beat exceed surpass outperform outshine win secure bag profit improve benefit approve succeed reward
cheer shine welcome please impress delight celebrate enjoy love praise thrive flourish prosper
support reassure award earn achieve accomplish resolve settle clinch recommend accumulate unlock
brighten revive stabilise stabilize innovate help buy overcome triumph excel boom heal reap attain
conquer sparkle glow sizzle perk underpin buoy prop calm allay assuage soothe exempt relax waive
restore mend fix rescue repair acquit exonerate absolve defy shrug brave applaud hail laud acclaim
endorse favour favor prefer lure attract woo flock empower enrich uphold honour honor regain reclaim
recoup rejoice relish treasure admire adore cherish smile grin inspire fascinate captivate entertain
charm engage satisfy comfort simplify streamline facilitate contribute outdo outpace outrun monetise
turnaround bless enhance refresh
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
windfall demand popular lucrative efficient reliable innovative leading smooth smart worth sturdy
buoyant buoyed exuberant jubilant euphoria relief surplus upgrade undervaluation basks bumper
compelling conducive dovish emboldened encouraging exciting favoured favours glitter glory helpful
judicious okay okays promising sizzling spurs stimulus sops sustainable cleared clears upholds
honest honoured masterpiece engaging hilarious captivating delightful touching thrilling gripping
moving witty elegant warm gem stunning thanks thank grateful yay lol fabulous magnificent likes
liked enjoys fan proud welcomed kind gentle free valuable useful comfortable affordable darling
darlings sparkling stellar phenomenal phenomenally exceptional exceptionally exemplary decent ample
adequate abundant abundance cheerful fizz zing bang winning beneficiary beneficiaries tonic
supportive calm calmer respite reprieve breather exemption restoration rescue unscathed undeterred
unfazed overwhelming ace star stars king gems jewel champion champions leader leaders leadership
fastest landmark historic richest rewarding bonanza jackpot bounty largesse incentive incentives
opportune lure appetite craze frenzy fervour fervor euphoric merry dream magic festive generous
rerated rerating bullishness outperformance outperforms outperformed oversubscription fillip
boosters booster sweetener preferred favourites favorites ideal flourishing viable accretive
lucratively premier finest sought coveted hot bargain bargains undemanding inexpensive palatable
conservative prudent vibrant lively brisk robustly handsomely nicely well smoothly comfortably
healthier steady steadily trustworthy loyal enthusiasm enthusiastic excitement excited thrill joy
joyful laugh laughs cute adorable gorgeous pretty delicious tasty flawless masterful brilliantly
beautifully wonderfully perfectly marvelous marvellous spectacular splendid glorious sublime
unforgettable memorable powerful heartfelt heartwarming sincere intelligent thoughtful insightful
original refreshing uplifting triumphant victorious victory congratulations congrats woohoo hooray
blessed peaceful peace sunshine sunny refunds moat quality nimble agile superbly multibaggers rerate
accommodative benign beneficial positively positives optimistically hopefully upswings bluechip
bluechips recommended accumulation cashback subscribed reformist revival recoveries revives comeback
fit clean nods approvals approves ratified sanctioned progress breakthroughs truce ceasefire
"""
_BAD_VERBS = """
miss fail underperform disappoint worry fear concern warn default sue probe investigate accuse
penalise penalize ban reject delay halt suspend struggle suffer hurt hit harm damage threaten resign
quit exit fire scrap cancel abandon postpone block fine charge raid arrest recall complain blame
criticise criticize oppose dispute deny hate annoy bore waste ruin spoil destroy wreck break stumble
mar batter hammer punish pummel slam plague haunt jolt rattle spook shock stun squeeze burden stress
strain pressure hamper hinder derail disrupt dampen weigh wipe worsen sell book dump stall stagnate
freeze dilute restrict jeopardise jeopardize cheat lie steal leak avoid sour restrain spar feud
quarrel undermine underwhelm dupe swindle embezzle manipulate rig misuse violate flout evade summon
seize debar prohibit bar blacklist shelve oust retrench shut wobble flounder languish waver flop
botch clobber maul pound thrash crush unnerve unsettle alarm fret dread scare panic mire saddle trap
flee withdraw redeem beware discard dim misfire mislead misstate overstate overpay overrun overshoot
stagger grapple bruise cripple choke strangle stifle impede obstruct thwart foil scupper sabotage
backfire collude bribe forge plead convict indict prosecute litigate allege condemn bash blast
lament regret mourn weep cry scream disgust offend insult mock bother frustrate confuse depress
deprive deter discourage dissuade desert erode exhaust expire explode forfeit infringe inflict
intimidate kill leave lapse mismanage neglect overcharge overburden overheat poison pollute provoke
quash refuse renege repel retaliate revoke rob rue scold shun slap smuggle snub strand sulk suppress
terrify tarnish terminate trouble unravel upset veto vex wane writeoff dishonour
"""
_BAD_WORDS = """
loss losses weak weaker weakest weakness poor poorer bad worse worst awful terrible horrible
dreadful disappointing disappointment sad dull boring stupid ugly mess mediocre tedious lame
pathetic annoying useless broken failure failures bankrupt bankruptcy insolvent insolvency
insolvencies fraud scam scandal scandals penalty penalties lawsuit lawsuits litigation crisis crises
trouble troubled troubles turmoil volatile volatility uncertain uncertainty risk risks risky
negative pessimistic pessimism gloomy gloom bleak grim dire dim fragile subdued sluggish soft muted
lacklustre lackluster tepid flat tough difficult hard harsh painful pain woes woe headwind headwinds
bearishness recession inflation deficit debt debts layoff layoffs strike strikes shortage shortages
shortfall overvalued expensive costly overbought underweight underperformer caution cautious wary
nervous jitters panic anxiety worried worries fears concerns tension tensions war attack attacks
violation violations breach illegal corrupt corruption toxic npa npas junk hurdle hurdles setback
setbacks obstacle problem problems defect defects faulty unable unlikely impairment writedown
writeoff dispute victim disaster accident outage nonpayment delinquent overdue beaten damp slowdown
resistance short overhang arrears bribery cancer choppy costlier defaulter defaulters defers
deferred directionless disruption disruptions doubt doubts edgy jittery killing killed kills
laundering looms loom looming miffed negatives oversupply oversold rages refuses refused revokes
revoked rumours rumour sacks sacked sanctions shakes shaky slaps slapped stretched tightening
tougher unfavourable unfavorable vulnerable withdraws withdrawn withdrew bitter blues challenges
challenging complaints hawkish dismisses dismissed detains detained jailed jail guilty convicted
flawed predictable clumsy shallow bland forgettable unfunny contrived lifeless messy cheesy
ridiculous nonsense idiotic garbage crap sucks sucked sorry sick tired cry crying angry upset
disgusting rude cold dirty noisy slow late missing unfortunately regret hated disgrace trash death
dead died die dying ill injured hostile bias biased threat threats dangerous danger liquidator
liquidation criticism crunch awry defunct row rift tussle wrangle standoff impasse deadlock
stalemate gridlock paralysis inaction unrest conflict conflicts riot riots protest protests chaos
havoc mayhem catastrophe catastrophic disastrous debacle fiasco blow doldrums limbo quandary dilemma
trap pitfall pitfalls bubble froth frothy overheated steep pricey lofty unsupportive unattractive
uncompetitive unviable unsustainable unprofitable unsuccessful unwanted underwhelming subpar
substandard dearth scarcity paucity drought flood floods hailstorm hailstorms storm quake earthquake
tsunami terror terrorism bomb blast crime criminal criminals forgery cheating ponzi manipulation
manipulators rigging irregularities misconduct wrongdoing malpractice lapse lapses negligence
evasion wilful willful contempt custody seizure suspension cancellation rejection resignation ouster
shutdown closure closures walkout lockout agitation stressed slippages writeoffs receivership
laggard laggards beleaguered embattled battered ailing alarming ominous menace daunting grave
serious severe severely acute critical jitteriness jitter skittish anxious apprehensive tense
nervousness nerves dread scare scares scary glum dismal sombre murky foggy cloudy dark lull listless
insipid anaemic anemic comatose stagnant stagnation stuck trapped burdened laden snag snags glitch
glitches hiccup hiccups roadblock bottleneck bottlenecks constraint constraints impediment crackdown
clampdown overdone exhausted overcrowded crowded overdependence fatigue fake dubious illicit
suspicious suspected rogue sham bogus exodus flight defensive curb curbs underperformance
unfavourably adverse adversely negatively unlucky unfortunate miserable misery horrid horrifying
nasty filthy stale tasteless inedible overcooked overpriced ripoff awfully badly worthless pointless
meaningless senseless silly lousy uninspired uninspiring unoriginal incoherent tiresome irritating
insulting offensive gross creepy amateurish laughable painfully dumb moron idiot idiots stupidity
hopeless helpless lonely depressed depressing heartbroken heartbreaking tragic tragedy ugh sigh wtf
fails fatal lethal deadly crippling headache headaches nightmare nightmares hazard hazards bug bugs
crash crashes malfunction unreliable unresponsive frozen defective refund complaint worsening
worsened deteriorating deterioration declining eroding uncertainties probe probes fines penalised
penalized convict fugitive scamster bribe bribes kickback kickbacks cartel monopoly monopolistic
antitrust infringement plagiarism sanction embargo blockade siege invasion hostility hostilities
standstill stall stalled stalls unpaid unsold unsecured unmet idle idled glut oversupplied
overcapacity overruns overrun leakages pilferage vulnerability susceptible exposed contagion fallout
spillover brunt misses missed shocker shock shocks shocking bloodied turbulence turbulent bumpy
rough choppiness sideways hawkishness downbeat disappointed disappoints disappointments flops flop
dud duds lemon underachiever loser lossmaking nonperforming delinquency delinquencies haircut
haircuts moratorium strain strains strained squeezed squeeze burdens hurting damaging harmful
detrimental deceptive misleading false untrue denial
"""
_TURNS = """
not no n't never none nothing nobody neither nor without cannot hardly barely scarcely despite
although though but however yet unless except lack lacks lacking stop stops stopped end ends ended
fails failed fail unlikely deny denies denied rule rules off limit limits limited curb curbs offset
offsets erase erases erased reverse reverses reversed snap snaps snapped pare pares pared avoid
avoids avoided halt halts halted prevent prevents prevented too if may might could would seldom
rarely against instead rather far stem stems stemmed ease eases eased easing resist resists defy
defies defied shrug shrugs shrugged ignore ignores ignoring even still amid while whereas
notwithstanding regardless irrespective cap caps capped lift lifts lifted remove removes removed
relax relaxes relaxed recede recedes receding allay allays wipe wipes tame tames ain isn aren wasn
weren don doesn didn won wouldn couldn shouldn isnt arent wasnt dont doesnt didnt wont wouldnt
couldnt shouldnt cant
"""

# What moves, and whether its rise is good news.
_GOOD_THINGS = """
profit profits net pat earnings income incomes revenue revenues sales turnover topline bottomline
margin margins ebitda eps dividend dividends demand order orders output production exports export
growth gdp iip share shares stock stocks scrip scrips market markets sensex nifty index indices
equity equities rupee sentiment sentiments confidence reserves subscribers volumes traffic rating
ratings guidance inflows liquidity collections consumption hiring jobs employment wages productivity
returns return valuation valuations assets deposits realisations occupancy shipments bookings
footfall utilisation prospects outlook visibility fundamentals appetite portfolio wealth savings
surplus futures prices price
"""
_BAD_THINGS = """
loss losses debt debts cost costs expense expenses expenditure inflation inflationary yield yields
deficit npa npas default defaults provision provisions provisioning duty duties tax taxes tariff
tariffs levy cess fine fines penalty penalties unemployment joblessness claims tension tensions fear
fears worry worries concern concerns risk risks volatility burden imports arrears dues liabilities
leverage stress slippages delays uncertainty pressure pressures cases deaths complaints subsidy
rates interest premium attrition layoffs redundancies crime pollution outages spreads overruns
inventory stockpiles
"""
# News of what somebody does or will do, which has no sign of its own.
_PLAIN_VERBS = """
appoint name launch unveil introduce plan mull consider propose seek file submit apply invite ask
tell direct notify clarify issue announce declare set revise review discuss meet debate talk await
eye watch track decide hire join rejig reshuffle complete open start begin close list delist offer
auction tender bid allot split elect nominate designate induct hold sign form constitute float
garner mobilise acquire merge demerge transfer restructure convert register publish release present
explain describe comment say report post schedule fix examine study explore adopt amend grant permit
allow
"""
_PLAIN_WORDS = """
appointment committee panel board policy agenda guidelines norms rules framework pact agreement mou
ipo fpo qip ofs ncd bonds debentures auction offering draft meeting conference strategy strategies
tips things reasons ways guide view views preview calendar takeaways cues rangebound sideways mixed
unchanged holiday schedule director chairman ceo cfo md chief governor official officials regulator
sebi ministry government govt court tribunal platform scheme schemes product products fund funds
stake perspective proposal process role picks ideas
"""
# What a reader is told to do.
_BUYING_WORDS = """
buy buying accumulate hold add long overweight bullish recommend prefer like likes bet invest
invested enter nibble upgrade outperform pick picks bargain target targets
"""
_SELLING_WORDS = """
sell selling avoid exit short shorting reduce underweight bearish book booking downgrade
underperform stay away caution cautious wait beware trim neutral
"""
_DOUBTS = """
may might could likely unlikely expect expects expected expecting seen see sees if should would can
possible possibly perhaps probably potential potentially maybe whether forecast forecasts estimate
estimates predict predicts think believe hope hopes what why how when which who where is are does do
did will poised set ?
"""

# Words that mean together what none of them means alone.
_GOOD_PHRASES = """
on a roll, in the green, in green, on fire, on fast track, on track, sweet spot, game changer,
bright spot, green shoots, clean chit, all time high, life time high, life high, record high, new
high, fresh high, week high, month high, year high, go long, stay long, going long, stay invested,
remain invested, buy on dips, bought on dips, buying opportunity, good bet, good buy, value buy,
value buying, top pick, top picks, top bet, top bets, room for, upside potential, more upside,
further upside, edge up, edges up, inch up, inches up, tick up, bounce back, bounces back, shrug
off, shrugs off, tide over, out of the woods, turn the corner, turn around, turns around, back in
black, in the black, return to profit, returns to profit, swings to profit, thumbs up, shot in the
arm, lead from front, leads from front, from the front, gain ground, gains ground, pick up, picks
up, take off, takes off, steal the show, stole the show, hold up, holds up, well placed, well
positioned, cash in, ray of hope, silver lining, safe haven, cost cuts, cut debt, cuts debt, reduce
debt, pare debt, repay debt, cost cutting, short covering, fully subscribed, over subscribed, beats
estimates, beat estimates, better than expected, above estimates, ahead of estimates, tops
estimates, beats street, come back, comes back, looks good, look good, look up, looks up, looking
up, look attractive, looks attractive, limited downside, narrows loss, loss narrows, net loss
narrows, losses narrow, loss shrinks, bull run, bull market, cheap valuations, attractive
valuations, feel good, good time, good times, right time, price target raised, raises target, raises
stake, hikes stake, ups stake, buys stake, rate cut, rate cuts, cut rates, cuts rates, fund
infusion, wins order, bags order, gets order, bags contract, wins contract, gets nod, gets approval,
multi bagger, not bad, no worry, no worries, nothing wrong, ca n't go wrong, must see, must watch,
ca n't wait, well worth, thank you, at its best, laugh out loud
"""
_BAD_PHRASES = """
in the red, in red, under pressure, out of steam, lose steam, loses steam, lose sheen, loses sheen,
loses lustre, loses shine, off highs, off high, out of favour, profit booking, profit taking, book
profit, book profits, booking profit, booking profits, sell off, selling pressure, stay away, stay
out, stay clear, steer clear, keep off, go short, going short, sell on rise, sell on rallies, sell
into, use rallies, net loss, bad loan, bad loans, job cuts, cuts jobs, cut jobs, job losses, pull
out, pulls out, step down, steps down, shut down, shuts down, winding up, hit by, weigh on, weighs
on, weighed on, weighed by, drag down, drags down, take a hit, takes a hit, takes toll, take toll,
its toll, bear the brunt, bear brunt, feel the heat, feel heat, feels heat, in trouble, in limbo, on
hold, fall short, falls short, worse than expected, below estimates, below expectations, misses
estimates, miss estimates, lags estimates, at risk, on the brink, rough patch, tough time, hard
time, bumpy ride, bear grip, bear market, bear hug, bears grip, dead cat, far from over, no respite,
no relief, no taker, no takers, no hope, too high, too expensive, too early, too much, too late, too
long, too steep, red flag, red flags, more pain, pain ahead, head south, heads south, hard landing,
debt trap, debt laden, cash strapped, loss making, show cause, under scanner, under lens, under the
scanner, in the dock, in soup, hot water, rate hike, rate hikes, hike rates, hikes rates, profit
warning, margin pressure, week low, month low, year low, all time low, record low, life low, new
low, fresh low, more downside, further downside, limited upside, upside limited, upside capped, not
recommended, do n't buy, not buy, not good, not great, no good, not overweight, not bullish, not
convinced, not impressed, not worth, n't recommend, n't like, ca n't pay, n't look bright, net loss
widens, loss widens, losses widen, widens loss, lacks momentum, lack of, flight to safety, rich
valuations, expensive valuations, stretched valuations, stiff resistance, face resistance, faces
resistance, find resistance, stress test, sells stake, cuts stake, pares stake, trims stake, sell
stake, loses market, give up, gives up, waste of time, waste of money, fall apart, falls apart,
falls flat, fall flat, fell flat, let down, sick of, fed up, stay cautious, remain cautious, over
valued, wait and watch, out of stock, broke down, break down, breaks down, ran out, run out, runs
out, go down, goes down, going down, come down, comes down
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
def known_words() -> dict[str, tuple[float, ...]]:
    """Each word with its cues, in the order of :data:`CUES`; 0 where nothing is known."""
    signed = (
        ("direction", 1.0, _RISING_VERBS, _RISING_WORDS),
        ("direction", -1.0, _FALLING_VERBS, _FALLING_WORDS),
        ("tone", 1.0, _GOOD_VERBS, _GOOD_WORDS),
        ("tone", -1.0, _BAD_VERBS, _BAD_WORDS),
        ("turn", 1.0, "", _TURNS),
        ("thing", 1.0, "", _GOOD_THINGS),
        ("thing", -1.0, "", _BAD_THINGS),
        ("advice", 1.0, "", _BUYING_WORDS),
        ("advice", -1.0, "", _SELLING_WORDS),
        ("plain", 1.0, _PLAIN_VERBS, _PLAIN_WORDS),
        ("doubt", 1.0, "", _DOUBTS),
    )
    known: dict[str, list[float]] = {}
    for cue, sign, verbs, words in signed:
        forms = [form for verb in verbs.split() for form in _verb_forms(verb)]
        for word in (*forms, *words.split()):
            known.setdefault(word, [0.0] * len(CUES))[CUES.index(cue)] = sign
    return {word: tuple(signs) for word, signs in known.items()}


@cache
def _phrases() -> dict[str, list[tuple[list[str], float]]]:
    """By first word: the phrases, the longest first, and their tone."""
    found: dict[str, list[tuple[list[str], float]]] = {}
    for tone, phrases in ((1.0, _GOOD_PHRASES), (-1.0, _BAD_PHRASES)):
        for phrase in phrases.split(","):
            words = phrase.split()
            found.setdefault(words[0], []).append((words, tone))
    for same_start in found.values():
        same_start.sort(key=lambda one: -len(one[0]))
    return found


def cues(tokens: Sequence[str]) -> np.ndarray:
    """What is known of each token of a text: (len(tokens), len(CUES)) float32, 0 for nothing.

    The words of a phrase have its tone, and no cue of their own.
    """
    known, phrases, tokens = known_words(), _phrases(), list(tokens)
    nothing = (0.0,) * len(CUES)
    told: list[tuple[float, ...]] = []
    while len(told) < len(tokens):
        at = len(told)
        for words, tone in phrases.get(tokens[at], ()):
            if tokens[at : at + len(words)] == words:
                told += [tuple(tone if cue == "tone" else 0.0 for cue in CUES)] * len(words)
                break
        else:
            told.append(known.get(tokens[at], nothing))
    return np.array(told, np.float32).reshape(len(tokens), len(CUES))


def cue_names(tokens: Sequence[str], told: np.ndarray) -> list[str]:
    """The tokens, those with any of the cues in ``told`` replaced by them, such as ``<+0->``.

    Args:
        tokens: of a text.
        told: some columns of their cues, (len(tokens), n).
    """
    return [
        "<" + "".join("-0+"[int(cue) + 1] for cue in signs) + ">" if any(signs) else token
        for token, signs in zip(tokens, told.tolist(), strict=True)
    ]
