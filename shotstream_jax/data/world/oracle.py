"""What a StoryWorld film shows, measured from its pixels alone.

The empty set is recognised first: it gives scene and sky, and what differs from it is the
character. Its mask gives place and size; canonical looks (silhouettes.py), fitted region by region
over all frames, give shape, pattern and turning; the fitted regions give the colours. Nothing here
knows what the film should show: that comparison is film_score.py.
"""

import dataclasses
import functools
from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8

from shotstream_jax.data.world.attributes import (
    COLOURS,
    FRAMINGS,
    PATTERNS,
    SCENES,
    SHAPES,
    SKIES,
    TRIMS,
    Rgb,
)
from shotstream_jax.data.world.motion import TURN_SECONDS
from shotstream_jax.data.world.scenery import backdrop
from shotstream_jax.data.world.silhouettes import (
    ANGLES,
    REGIONS,
    Hulls,
    Mask,
    fill,
    measure_hulls,
    sample_patches,
    templates,
)
from shotstream_jax.data.world.stage import ACTION_FPS, LENSES, Picture

Film = UInt8[np.ndarray, "video_frame height width 3"] | Float[np.ndarray, "video_frame height width 3"]
Rgbs = Float[np.ndarray, "video_frame height width 3"]

_SEEN_FRAMES = 21
_COARSE = 4
_RESIDUAL = 34.0
_DARKEST_SHADOW = 0.68


def smooth(images: Rgbs) -> Rgbs:
    """Mean over 3x3 pixels; the edge repeats."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    rows = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return (rows[:, :, :-2] + 2 * rows[:, :, 1:-1] + rows[:, :, 2:]) / 16


@dataclasses.dataclass(frozen=True)
class Set:
    scene: str
    sky: str
    framing: str


@functools.lru_cache(maxsize=8)
def _sets(picture: Picture):
    keys = [Set(s, k, f) for s in SCENES for k in SKIES for f in FRAMINGS]
    canv = np.stack([backdrop(k.scene, k.sky, k.framing, picture) for k in keys])
    return keys, coarse(canv)

def coarse(im):
    n,h,w,c=im.shape
    return im.reshape(n,h//_COARSE,_COARSE,w//_COARSE,_COARSE,c).mean((2,4))

def recognise_set(frames: Rgbs, picture: Picture):
    keys, canv = _sets(picture)
    seen = np.median(coarse(frames), axis=0)
    d = np.minimum(np.abs(canv-seen).sum(-1), 120).mean((1,2))
    return keys, d

@functools.lru_cache(maxsize=64)
def _envelope(scene, sky, framing, picture):
    b = backdrop(scene, sky, framing, picture)
    p = np.pad(b, ((2,2),(2,2),(0,0)), mode='edge')
    v = np.lib.stride_tricks.sliding_window_view(p,(5,5),axis=(0,1))
    return (v.min((-1,-2)), v.max((-1,-2)))

def foreground(frames, st, picture):
    b = backdrop(st.scene, st.sky, st.framing, picture)
    lo, hi = _envelope(st.scene, st.sky, st.framing, picture)
    k = np.clip((frames*b).sum(-1)/(b*b).sum(-1), _DARKEST_SHADOW, 1.0)
    lens = LENSES[st.framing]
    k[:, :int((lens.floor-.27*lens.radius)*picture.height)] = 1
    r = frames / k[...,None]
    r = np.maximum(0, np.maximum(r-hi, lo-r))
    r = np.sqrt((r*r).sum(-1))
    return r

def _box(m, k):
    c = np.cumsum(np.cumsum(np.pad(m.astype(np.float32),((0,0),(k+1,k),(k+1,k))),1),2)
    return c[:,2*k+1:,2*k+1:]-c[:,:-2*k-1,2*k+1:]-c[:,2*k+1:,:-2*k-1]+c[:,:-2*k-1,:-2*k-1]

def locate(res, picture):
    m = res > _RESIDUAL
    m = _box(m,1) > 3.5
    # keep what lies around the densest spot
    k = int(0.2*picture.height)
    dens = _box(m, k)
    n,h,w = m.shape
    at = dens.reshape(n,-1).argmax(1)
    cy, cx = at//w, at%w
    R = 0.5*picture.height
    yy, xx = np.arange(h)[None,:,None], np.arange(w)[None,None,:]
    near = (np.abs(yy-cy[:,None,None])<R)&(np.abs(xx-cx[:,None,None])<R)
    return fill(m & near)

@functools.lru_cache(1)
def _weights():
    t = templates()
    reg = t.regions  # r s p a px
    n = reg.sum(-1)
    return t, reg.reshape(-1, reg.shape[-1]), n

def fit(patches, masks):
    """cost [shape pattern angle frame], colours"""
    t, W, n = _weights()
    F = patches.shape[0]
    P = patches.transpose(1,0,2).reshape(patches.shape[1], -1)
    s = (W @ P).reshape(*n.shape, F, 3)
    inside = t.regions.sum(0)   # s p a px
    sq = (inside[:,0].reshape(-1, inside.shape[-1]) @ (patches**2).sum(-1).T).reshape(len(SHAPES),1,ANGLES,F)
    expl = ((s**2).sum(-1)/np.maximum(n,1e-3)[...,None]).sum(0)
    sse = np.maximum(sq - expl, 0)   # s p a F
    # silhouette disagreement
    ins = t.inside.reshape(-1, t.inside.shape[-1])
    mm = masks.T
    dis = (ins.sum(-1)[:,None] + mm.sum(0)[None] - 2*ins@mm).reshape(len(SHAPES),1,ANGLES,F)
    means = s/np.maximum(n,1e-3)[...,None,None]
    return sse, dis, means
