"""Bandstand: rendered videos in MUSIC-AVQA's formats that know when and where every answer is."""
