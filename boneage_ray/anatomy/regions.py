"""The words by which DICOM headers name body regions and views, in the languages of hospitals.

BodyPartExamined has defined terms (PS3.16 annex L), but consoles fill it with words of the country, with sides, and without
spaces: "Hand li.", "MAIN", "LHAND", "HANDGELENK". Only words of these lists are ever taken from a header, never its text: a name
could stand in it.

>>> region_words("Hand li."), region_words("Schädel seitl."), region_words("C-SPINE"), region_words("Doe^Jane")
(('HAND',), ('SCHADEL',), ('CSPINE',), ())
>>> region_of("MANO"), region_of("THORAX"), region_of("LEFT")
('hand', 'elsewhere', None)
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from typing import Literal

Region = Literal["hand", "head", "elsewhere"]
View = Literal["frontal", "lateral", "mammogram"]

# English, then German, French, Spanish, Italian, Portuguese, Dutch, Scandinavian and Polish words without accents.
_HAND = """
HAND HANDS WRIST WRISTS FINGER FINGERS THUMB THUMBS CARPAL CARPALS CARPUS METACARPAL METACARPALS METACARPUS BONEAGE
HAENDE HANDE HANDGELENK HANDGELENKE HANDWURZEL MITTELHAND DAUMEN KARPUS KNOCHENALTER SKELETTALTER
MAIN MAINS POIGNET POIGNETS DOIGT DOIGTS POUCE CARPE MANO MANOS MUNECA MUNECAS DEDO DEDOS PULGAR CARPO
MANI POLSO POLSI DITO DITA POLLICE MAO MAOS PUNHO PUNHOS POLEGAR HANDEN POLS DUIM VINGER VINGERS
HANDER HENDER HAENDER HANDLED HANDLEDD HANDROT HANDRYGG TUMME TOMMEL REKA DLON DLONIE NADGARSTEK
"""
_HEAD = """
HEAD HEADNECK SKULL FACE FACIAL JAW JAWS MAXILLA MANDIBLE TEETH TOOTH DENTAL TMJ TMJS ORBIT ORBITS SINUS SINUSES BRAIN EYE EYES
EAR EARS NOSE NASAL MOUTH TONGUE PAROTID MASTOID ZYGOMA CRANIUM CEPH CEPHALO CEPHALOGRAM CEPHALOMETRIC LATCEPH IAC
NECK CSPINE CTSPINE CERVICAL SPINE LARYNX PHARYNX AIRWAY ADENOID ADENOIDS
SCHAEDEL SCHADEL KOPF GESICHT KIEFER UNTERKIEFER OBERKIEFER ZAHN ZAEHNE ZAHNE NASE AUGE HALS HWS WIRBELSAEULE WIRBELSAULE
FERNROENTGEN FERNRONTGEN FRS CRANE TETE VISAGE MACHOIRE DENT DENTS MANDIBULE MAXILLAIRE COU RACHIS CERVICALE
TELECRANE TELERADIOGRAPHIE CRANEO CABEZA CARA MANDIBULA DIENTES CUELLO COLUMNA TELERRADIOGRAFIA
CRANIO TESTA FACCIA MANDIBOLA MASCELLA DENTI COLLO COLONNA TELERADIOGRAFIA CABECA DENTES PESCOCO COLUNA
SCHEDEL HOOFD KAAK GEBIT NEK HALSRYGG SKALLE HODE HUVUD TANDER CZASZKA GLOWA
"""
_ELSEWHERE = """
CHEST THORAX RIB RIBS STERNUM LUNG LUNGS HEART BREAST BREASTS MEDIASTINUM AORTA ABDOMEN KUB PELVIS HIP HIPS SACRUM COCCYX
TSPINE LSPINE SSPINE LSSPINE TLSPINE LUMBAR LUMBOSACRAL THORACIC FEMUR THIGH KNEE KNEES PATELLA LEG LEGS CALF TIBIA FIBULA
ANKLE ANKLES FOOT FEET TOE TOES HEEL CALCANEUS TARSAL METATARSAL METATARSALS SHOULDER SHOULDERS CLAVICLE SCAPULA HUMERUS ELBOW
ELBOWS LIVER KIDNEY KIDNEYS BLADDER PANCREAS PROSTATE SPLEEN STOMACH BOWEL COLON UTERUS OVARY TESTIS RECTUM ESOPHAGUS
CAROTID THYROID TRACHEA CORONARY CORONARYARTERY ADRENAL GALLBLADDER DUODENUM BRONCHUS WHOLEBODY CHESTABDOMEN ABDOMENPELVIS
CHESTABDPELVIS NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV LOWEREXTREMITY
LUNGE HERZ BRUST RIPPEN BECKEN HUEFTE HUFTE KNIE UNTERSCHENKEL OBERSCHENKEL SPRUNGGELENK FUSS FUESSE FUSSE VORFUSS ZEHE ZEHEN
FERSE SCHULTER SCHLUESSELBEIN ELLBOGEN ELLENBOGEN OBERARM BAUCH NIERE NIEREN LEBER BWS LWS
POITRINE POUMON POUMONS COTES BASSIN HANCHE HANCHES GENOU GENOUX JAMBE CHEVILLE PIED PIEDS ORTEIL TALON EPAULE COUDE VENTRE
SEIN SEINS FOIE REIN REINS COEUR LOMBAIRE
TORAX PECHO COSTILLAS CADERA CADERAS RODILLA RODILLAS PIERNA TOBILLO PIE PIES TALON HOMBRO CODO MAMA MAMAS HIGADO RINON
CORAZON LUMBARES TORACE BACINO ANCA GINOCCHIO GINOCCHIA GAMBA CAVIGLIA PIEDE PIEDI SPALLA GOMITO ADDOME MAMMELLA FEGATO
CUORE LOMBARE BACIA QUADRIL JOELHO JOELHOS PERNA TORNOZELO PE OMBRO COTOVELO ABDOME FIGADO RIM CORACAO LOMBAR
BEKKEN HEUP ENKEL VOET VOETEN TEEN SCHOUDER ELLEBOOG BORST BUIK LONGEN KNE KNA FOT HOFT SKULDER ALBUE ARMBAGE LUNGOR
KLATKA MIEDNICA BIODRO KOLANO STOPA BARK LOKIEC BRZUCH
"""
_WORDS: dict[str, Region] = {
    **dict.fromkeys(_ELSEWHERE.split(), "elsewhere"),
    **dict.fromkeys(_HEAD.split(), "head"),
    **dict.fromkeys(_HAND.split(), "hand"),
}
# Terms of two words that mean something else than each of them.
_TERMS = {
    "BONE AGE": "BONEAGE",
    "AGE OSSEUX": "BONEAGE",
    "EDAD OSEA": "BONEAGE",
    "ETA OSSEA": "BONEAGE",
    "IDADE OSSEA": "BONEAGE",
    "C SPINE": "CSPINE",
    "T SPINE": "TSPINE",
    "L SPINE": "LSPINE",
    "LS SPINE": "LSSPINE",
    "CERVICAL SPINE": "CSPINE",
    "THORACIC SPINE": "TSPINE",
    "LUMBAR SPINE": "LSPINE",
    "COLUMNA LUMBAR": "LSPINE",
    "COLUNA LOMBAR": "LSPINE",
    "COLONNA LOMBARE": "LSPINE",
    "RACHIS LOMBAIRE": "LSPINE",
    "WHOLE BODY": "WHOLEBODY",
    "LOWER EXTREMITY": "LOWEREXTREMITY",
}
# What is written to a region without a space: its side, or its view.
_BEFORE = ("LEFT", "RIGHT", "LT", "RT", "LI", "RE", "L", "R")
_AFTER = (*_BEFORE, "LAT", "AP", "PA", "DP")
# Concepts of the anatomic region sequence (PS3.16 CID 4031, CID 4): SNOMED CT, and SNOMED RT before it.
CODES = {
    **dict.fromkeys(("85562004", "T-D8700"), "HAND"),
    **dict.fromkeys(("74670003", "8205005", "T-15460", "T-D8600"), "WRIST"),
    **dict.fromkeys(("7569003", "T-D8800"), "FINGER"),
    **dict.fromkeys(("76505004", "T-D8810"), "THUMB"),
    **dict.fromkeys(("69536005", "T-D1100"), "HEAD"),
    **dict.fromkeys(("89546000", "T-11100"), "SKULL"),
}
_VIEWS: dict[View, tuple[str, ...]] = {
    "frontal": ("AP", "PA", "DP", "FRONTAL", "DORSOPALMAR", "DORSOVOLAR", "POSTEROANTERIOR", "ANTEROPOSTERIOR"),
    "lateral": ("LL", "RL", "LAT", "LATERAL", "LLAT", "RLAT", "SEITLICH", "SEITL", "PROFIL", "PERFIL", "LATERALE"),
    "mammogram": ("CC", "MLO", "ML", "LM", "LMO", "XCC", "XCCL", "XCCM"),
}


def region_words(text: str) -> tuple[str, ...]:
    """The known words of a header's text in its order, in capitals without accents, sides and views."""
    spaced = f" {' '.join(_tokens(text))} "
    for term, word in _TERMS.items():
        spaced = spaced.replace(f" {term} ", f" {word} ")
    found = (_known(token) for token in spaced.split())
    return tuple(dict.fromkeys(word for word in found if word is not None))


def region_of(word: str) -> Region | None:
    """The region of a word that `region_words` gives; None for any other."""
    return _WORDS.get(word)


def view_of(texts: Iterable[str]) -> View | None:
    """The view that texts of a header name; None where they name none or several."""
    tokens = {token for text in texts for token in (*_tokens(text), "".join(_tokens(text)))}
    named = [view for view, words in _VIEWS.items() if tokens & set(words)]
    return named[0] if len(named) == 1 else None


def _tokens(text: str) -> list[str]:
    plain = text.upper().replace("Ł", "L").replace("Ø", "O").replace("Æ", "AE")
    return re.findall(
        "[A-Z]+", "".join(c for c in unicodedata.normalize("NFKD", plain) if not unicodedata.combining(c))
    )


def _known(token: str) -> str | None:
    """The word of the lists that a token is, or begins or ends with beside a side or a view."""
    for word in (token, *_stripped(token)):
        if word in _WORDS:
            return word
    return None


def _stripped(token: str) -> list[str]:
    without = [token.removeprefix(side) for side in _BEFORE if token.startswith(side)]
    return without + [one.removesuffix(end) for one in (token, *without) for end in _AFTER if one.endswith(end)]
