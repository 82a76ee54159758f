"""The tables of facts the built-in model is taught.

Owns the facts and nothing about their wording (see `phrasings.py`). Plain data: subject -> answer.
"""

from __future__ import annotations

from typing import Final

# One country per line: name, capital, main language, continent.
_COUNTRIES: Final = """
France|Paris|French|Europe
Germany|Berlin|German|Europe
Spain|Madrid|Spanish|Europe
Italy|Rome|Italian|Europe
Portugal|Lisbon|Portuguese|Europe
Austria|Vienna|German|Europe
Poland|Warsaw|Polish|Europe
Greece|Athens|Greek|Europe
Ireland|Dublin|English|Europe
Sweden|Stockholm|Swedish|Europe
Norway|Oslo|Norwegian|Europe
Denmark|Copenhagen|Danish|Europe
Finland|Helsinki|Finnish|Europe
Iceland|Reykjavik|Icelandic|Europe
Hungary|Budapest|Hungarian|Europe
Romania|Bucharest|Romanian|Europe
Bulgaria|Sofia|Bulgarian|Europe
Croatia|Zagreb|Croatian|Europe
Serbia|Belgrade|Serbian|Europe
Slovenia|Ljubljana|Slovene|Europe
Slovakia|Bratislava|Slovak|Europe
Czechia|Prague|Czech|Europe
Ukraine|Kyiv|Ukrainian|Europe
Lithuania|Vilnius|Lithuanian|Europe
Latvia|Riga|Latvian|Europe
Estonia|Tallinn|Estonian|Europe
Albania|Tirana|Albanian|Europe
the Netherlands|Amsterdam|Dutch|Europe
the United Kingdom|London|English|Europe
Belgium|Brussels||Europe
Switzerland|Bern||Europe
Russia|Moscow|Russian|
Turkey|Ankara|Turkish|
Japan|Tokyo|Japanese|Asia
China|Beijing|Chinese|Asia
South Korea|Seoul|Korean|Asia
North Korea|Pyongyang|Korean|Asia
Vietnam|Hanoi|Vietnamese|Asia
Thailand|Bangkok|Thai|Asia
Cambodia|Phnom Penh|Khmer|Asia
Laos|Vientiane|Lao|Asia
Mongolia|Ulaanbaatar|Mongolian|Asia
Nepal|Kathmandu|Nepali|Asia
India|New Delhi||Asia
Pakistan|Islamabad|Urdu|Asia
Bangladesh|Dhaka|Bengali|Asia
Indonesia|Jakarta|Indonesian|Asia
Malaysia|Kuala Lumpur|Malay|Asia
the Philippines|Manila||Asia
Iran|Tehran|Persian|Asia
Iraq|Baghdad|Arabic|Asia
Syria|Damascus|Arabic|Asia
Lebanon|Beirut|Arabic|Asia
Jordan|Amman|Arabic|Asia
Saudi Arabia|Riyadh|Arabic|Asia
Qatar|Doha|Arabic|Asia
Armenia|Yerevan|Armenian|Asia
Georgia|Tbilisi|Georgian|Asia
Afghanistan|Kabul||Asia
Uzbekistan|Tashkent|Uzbek|Asia
Egypt|Cairo|Arabic|Africa
Morocco|Rabat|Arabic|Africa
Algeria|Algiers|Arabic|Africa
Tunisia|Tunis|Arabic|Africa
Libya|Tripoli|Arabic|Africa
Sudan|Khartoum|Arabic|Africa
Ethiopia|Addis Ababa|Amharic|Africa
Kenya|Nairobi|Swahili|Africa
Uganda|Kampala||Africa
Rwanda|Kigali||Africa
Ghana|Accra|English|Africa
Nigeria|Abuja|English|Africa
Senegal|Dakar|French|Africa
Mali|Bamako||Africa
Angola|Luanda|Portuguese|Africa
Zambia|Lusaka|English|Africa
Zimbabwe|Harare||Africa
Mozambique|Maputo|Portuguese|Africa
Madagascar|Antananarivo|Malagasy|Africa
Namibia|Windhoek||Africa
the United States|Washington|English|North America
Canada|Ottawa||North America
Mexico|Mexico City|Spanish|North America
Cuba|Havana|Spanish|North America
Jamaica|Kingston|English|North America
Honduras|Tegucigalpa|Spanish|North America
Costa Rica|San Jose|Spanish|North America
Brazil|Brasilia|Portuguese|South America
Argentina|Buenos Aires|Spanish|South America
Chile|Santiago|Spanish|South America
Peru|Lima|Spanish|South America
Colombia|Bogota|Spanish|South America
Venezuela|Caracas|Spanish|South America
Ecuador|Quito|Spanish|South America
Uruguay|Montevideo|Spanish|South America
Paraguay|Asuncion||South America
Australia|Canberra|English|
New Zealand|Wellington|English|
Fiji|Suva||
"""

_COUNTRY_ROWS: Final = [line.split("|") for line in _COUNTRIES.strip().splitlines()]


def _pairs(text: str) -> dict[str, str]:
    """Read "subject:answer, subject:answer" into a table."""
    return {
        subject.strip(): answer.strip()
        for subject, answer in (entry.split(":") for entry in text.replace("\n", " ").split(","))
    }


def _both_ways(table: dict[str, str]) -> dict[str, str]:
    """Add answer -> subject wherever the answer is not a subject already."""
    return table | {a: s for s, a in reversed(table.items()) if a not in table}


CAPITALS: Final = {row[0]: row[1] for row in _COUNTRY_ROWS}
LANGUAGES: Final = {row[0]: row[2] for row in _COUNTRY_ROWS if row[2]}
CONTINENTS: Final = {row[0]: row[3] for row in _COUNTRY_ROWS if row[3]}
COUNTRIES: Final = {capital: country for country, capital in CAPITALS.items()}

COLOURS: Final = _pairs("""
grass:green, snow:white, coal:black, blood:red, a banana:yellow, a lemon:yellow, a carrot:orange,
a tomato:red, a strawberry:red, a cucumber:green, milk:white, salt:white, chocolate:brown,
an elephant:grey, a frog:green, a flamingo:pink, a raven:black, a polar bear:white, a canary:yellow,
the sky:blue, the sea:blue, the sun:yellow, a ruby:red, an emerald:green, a sapphire:blue,
an aubergine:purple, a pumpkin:orange, lavender:purple, honey:golden, rust:brown, broccoli:green,
a fire engine:red, a swan:white, spinach:green, ash:grey, a cherry:red, corn:yellow, ink:black
""")

SOUNDS: Final = _pairs("""
dog:barks, cat:meows, cow:moos, horse:neighs, sheep:bleats, pig:oinks, lion:roars, wolf:howls,
duck:quacks, owl:hoots, snake:hisses, frog:croaks, bee:buzzes, mouse:squeaks, donkey:brays,
rooster:crows, turkey:gobbles, pigeon:coos, elephant:trumpets, cricket:chirps, hen:clucks
""")

YOUNG: Final = _pairs("""
dog:puppy, cat:kitten, cow:calf, horse:foal, sheep:lamb, pig:piglet, goat:kid, deer:fawn,
bear:cub, duck:duckling, goose:gosling, swan:cygnet, frog:tadpole, kangaroo:joey, owl:owlet,
hen:chick, eagle:eaglet, hare:leveret, butterfly:caterpillar
""")

_DAYS: Final = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()  # noqa: SIM905
_MONTHS: Final = (
    "January February March April May June July August September October November December".split()  # noqa: SIM905
)
DAYS: Final = tuple(_DAYS)
MONTHS: Final = tuple(_MONTHS)
DAY_AFTER: Final = {day: _DAYS[(i + 1) % 7] for i, day in enumerate(_DAYS)}
DAY_BEFORE: Final = {day: _DAYS[(i - 1) % 7] for i, day in enumerate(_DAYS)}
MONTH_AFTER: Final = {month: _MONTHS[(i + 1) % 12] for i, month in enumerate(_MONTHS)}
MONTH_BEFORE: Final = {month: _MONTHS[(i - 1) % 12] for i, month in enumerate(_MONTHS)}

OPPOSITES: Final = _both_ways(
    _pairs("""
hot:cold, big:small, tall:short, fast:slow, happy:sad, light:dark, day:night, up:down, left:right,
open:closed, full:empty, rich:poor, strong:weak, young:old, hard:soft, wet:dry, early:late,
high:low, near:far, clean:dirty, loud:quiet, thick:thin, wide:narrow, deep:shallow,
sweet:bitter, sharp:blunt, rough:smooth, good:bad, true:false, first:last, begin:end, push:pull,
buy:sell, win:lose, give:take, love:hate, remember:forget, inside:outside, above:below,
before:after, always:never, friend:enemy, war:peace, success:failure, brave:cowardly,
simple:complicated, cheap:expensive, safe:dangerous, alive:dead, awake:asleep, polite:rude,
north:south, east:west, more:less, yes:no, come:go, arrive:leave, lazy:hardworking, tight:loose
""")
)

SYMBOLS: Final = _pairs("""
hydrogen:H, helium:He, lithium:Li, beryllium:Be, boron:B, carbon:C, nitrogen:N, oxygen:O,
fluorine:F, neon:Ne, sodium:Na, magnesium:Mg, aluminium:Al, silicon:Si, phosphorus:P, sulfur:S,
chlorine:Cl, argon:Ar, potassium:K, calcium:Ca, titanium:Ti, chromium:Cr, manganese:Mn, iron:Fe,
cobalt:Co, nickel:Ni, copper:Cu, zinc:Zn, arsenic:As, bromine:Br, krypton:Kr, silver:Ag, tin:Sn,
iodine:I, xenon:Xe, tungsten:W, platinum:Pt, gold:Au, mercury:Hg, lead:Pb, radium:Ra, uranium:U,
plutonium:Pu
""")
ELEMENTS: Final = {symbol: element for element, symbol in SYMBOLS.items()}

SIDES: Final = _pairs("""
triangle:three, square:four, rectangle:four, pentagon:five, hexagon:six, heptagon:seven,
octagon:eight, decagon:ten
""")
