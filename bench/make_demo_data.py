"""Makes the data of the demo in presets/demo: train.jsonl, eval.jsonl, preferences.jsonl and text.jsonl.

usage: python bench/make_demo_data.py [FOLDER]

Four small tasks on five-letter words. Every word stands in one row only, so the held-out words are new to
the model: what it gets right there it has understood. Five letters each, because a tiny model finds a letter
by its distance. The same bytes every time.
"""

import json
import random
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "presets" / "demo"
SEED = 7
NUM_HELD_OUT = 64
NUM_EXAMPLES = 128
"""Rows of the files that only show a layout: preferences and text."""
TASKS: Mapping[str, Callable[[str], str]] = {
    "Shout": lambda word: word.upper() + "!",
    "Spell": "-".join,
    "Repeat": lambda word: f"{word} {word}",
    "Hide vowels": lambda word: "".join("_" if letter in "aeiou" else letter for letter in word),
}


def rows(words: list[str]) -> list[dict[str, str]]:
    """Return one row for every word, the tasks in turn; as many rows as every task gets equally often."""
    tasks = list(TASKS.items())
    whole = len(words) - len(words) % len(tasks)
    return [
        {"prompt": f"{name}: {word}", "completion": change(word)}
        for word, (name, change) in zip(words[:whole], tasks * whole, strict=False)
    ]


def preferences(examples: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return pairs: the answer to the task is chosen, that to another task on the same word is rejected."""
    tasks = list(TASKS)
    pairs = []
    for row in examples:
        name, _, word = row["prompt"].partition(": ")
        other = TASKS[tasks[(tasks.index(name) + 1) % len(tasks)]]
        pairs.append({"prompt": row["prompt"], "chosen": row["completion"], "rejected": other(word)})
    return pairs


def texts(examples: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return task and answer as one text."""
    return [{"text": f"{row['prompt']}\n{row['completion']}"} for row in examples]


def lines(rows: list[dict[str, str]]) -> str:
    """Return the rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def make(folder: Path) -> None:
    """Write the files."""
    words = WORDS.split()
    random.Random(SEED).shuffle(words)  # noqa: S311 - an order, not a secret
    train = rows(words[NUM_HELD_OUT:])
    random.Random(SEED).shuffle(train)  # noqa: S311 - an order, not a secret
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.jsonl").write_text(lines(train), encoding="utf8")
    examples = train[:NUM_EXAMPLES]
    (folder / "preferences.jsonl").write_text(lines(preferences(examples)), encoding="utf8")
    (folder / "text.jsonl").write_text(lines(texts(examples)), encoding="utf8")
    (folder / "eval.jsonl").write_text(lines(rows(words[:NUM_HELD_OUT])), encoding="utf8")


WORDS = """
about above acorn actor adapt admit adult after agent agree ahead alarm album alert alien alive alley
allow alone alpha amaze amber among angel anger angle ankle apart apple apron arena argue arise armor
aroma arrow aside aspen attic audio avoid awake award aware bacon badge bagel baker banjo basic basil
batch baton beach beard began below bench beret berry berth binge birch bison black blade blank blaze
blend blink block bloom blush board bonus boost booth braid brain brake brand brass brave bread brick
brief brine bring broad brook broom brown brush buddy bugle build bulky bunch bunny cabin cable camel
canal candy canoe caper cargo carve cedar cello chain chair chalk champ charm chart chase cheer chess
chest chief chili chime choir cider cinch civic claim clamp clash clasp class clean clerk click cliff
climb cling cloak clock close cloud clown coach coast cobra cocoa color comet comic condo coral couch
count court cover crack craft crane crate crawl crazy cream creek crest crisp cross crowd crown cruel
crumb crush crust cubic curly curry curve cycle daily dairy daisy dance dandy datum decal decor delay
delta denim depth diary digit diner dingo disco diver dizzy dodge donut draft drain drama drape drawn
dream dress dried drift drink drive dwell eager eagle early earth easel eaten eight elbow elder elect
elite elope ember empty enjoy enter entry equal equip essay event every exact exist extra fable faint
fairy faith false fancy fault favor feast fence ferry fetch fiber field fifth fifty filly final finch
flair flame flash fleet flint float flock flood floor flour fluff flute focal focus folio force forge
forty forum found frame freed fresh frost fruit fudge funny fuzzy gecko genre ghost giant giddy glass
glaze gleam glide globe gloom glory glove gnome goose grace grade grain grand grant grape graph grass
gravy great green greet grill grind groom group grove grown guard guess guest guide habit haiku handy
happy haste hatch haven hazel heart heavy hedge hello heron hinge hippo hobby honey horse hotel hound
house hover human humor hurry icing ideal igloo inbox index inlet inner input ivory jelly jewel joint
joker jolly judge juice juicy jumbo karma kayak khaki knack knead knock koala label lance large larva
laser latch later latte laugh layer learn lease least ledge lemon level light lilac limbo limit linen
liver llama lobby local lodge logic lotus loyal lucky lunar lunch lyric macaw magic major maker mango
manor maple march match mayor medal melon mercy merge merit merry metal metro micro midst mimic minor
minus mocha modal model moist money month moose moral motel motif motor mount mouse mouth movie mural
music naval nerve never niche night ninja noble noisy north notch noted novel nurse nylon oasis ocean
offer often older olive onion onset optic orbit order organ other otter ought outer owner ozone paddy
paint panda panel panic paper party pasta paste patch pause peace peach pedal penny perch petal phone
photo piano piece pilot pinch pitch pivot pixel pizza place plaid plain plane plank plant plate plaza
pluck plume plush point polar polka poppy porch pouch pound power press price pride prime print prism
prize probe proof proud prune pulse punch pupil puppy purse quack quail queen quest queue quick quiet
quilt quota quote racer radar radio rainy raise rally ramen ranch range rapid ratio raven razor reach
react ready realm rebel refer relax relay reply rhyme rider ridge rifle right rigid rinse ripen risky
rival river roast robin robot rocky rodeo rogue roost rough round route royal ruler rumba rural salad
salsa sandy satin sauce sauna scale scarf scene scent scone scoop scope score scout scrap scuba sense
serve seven shade shake shape share shark sharp sheep shelf shell shift shine shirt shore short shout
shrub sight silky since siren skate skill skirt slate sleek sleep slice slide slope small smart smile
smoke snack snail sneak solar solid solve sonic sound south space spade spare spark speak speed spell
spend spice spike spill spine spoke spoon sport spray squad squid stack staff stage stair stalk stall
stamp stand stare start state steak steam steel steep stick sting stock stone stool store stork storm
story stout stove strap straw strip study style sugar suite sunny super surge sweep sweet swift swing
sword syrup table tango taste teach tempo tenth thank theme thick thing think third three throw thumb
tiara tidal tiger title toast today token tooth topaz topic torch total touch tough towel tower toxic
trace track trade trail train trait treat trend trial tribe trick troop trout truck truly trunk trust
truth tulip tunic tutor twice twist udder ultra uncle under union unite unity upper upset urban usage
usher usual vague valid value vapor vault video vigor vinyl viola viper viral visit vital vivid vocal
vogue voice vowel wafer wagon waist watch water weary weave wedge weigh whale wheat wheel white whole
wider windy witty woman woven wrist write yacht yeast yield young youth zebra zesty
"""

if __name__ == "__main__":
    make(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER)
