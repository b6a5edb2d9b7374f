"""The miniature's video autoencoder, trained on StoryWorld: the first of the miniature's stages.

    shotstream train configs/tiny_vae.py --resume

The same command goes on where a stopped run was left. It learns on pictures, which are cheap, then
on clips of 5, 9 and 21 frames. Cost and result: to be measured.
"""
