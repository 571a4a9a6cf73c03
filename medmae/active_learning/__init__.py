"""What to annotate next: cases ordered by how much a model would learn from them (docs/annotating.md).

Strategies say how useful a case is; each is one file in `strategies` and one line in its registry.
"""

from __future__ import annotations

from medmae.active_learning.ranking import RankedCase, Ranking, rank

__all__ = ["RankedCase", "Ranking", "rank"]
