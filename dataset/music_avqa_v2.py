"""MUSIC-AVQA version 2 (Liu et al., WACV 2024): more videos, balanced answers, a balanced and a biased test set.

Its rows are those of MUSIC-AVQA, but some lack `question_id`, `templ_values` may be a list instead of JSON in a string,
and some ask about videos that were made of others. These are videos of their own here, with files under their own
names, made before extraction:

    <id>_flip     mirrored, so that left is right:        ffmpeg -i <id>.mp4 -vf hflip -c:a copy <id>_flip.mp4
    <id>+<other>  with the sound of another video (field `unmatch_audio`):
                  ffmpeg -i <id>.mp4 -i <other>.mp4 -map 0:v -map 1:a -c copy -shortest <id>+<other>.mp4
"""

from dataclasses import replace

from dataset.music_avqa import MUSIC_AVQA

MUSIC_AVQA_V2 = replace(
    MUSIC_AVQA,
    title="MUSIC-AVQA v2",
    published={"Reported": {"CueSpace, balanced": {"All": 78.49}, "CueSpace, biased": {"All": 78.59}}},
    published_questions=None,
)
