"""Draw the icons of the extension and of its modules: ``python Resources/draw_icons.py`` (needs PySide6).

The motif is the method: an image cut into patches, most of them masked, and what is found in it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from PySide6.QtCore import QPointF, QRectF, Qt  # noqa: E402
from PySide6.QtGui import (  # noqa: E402
    QBrush,
    QColor,
    QGuiApplication,
    QImage,
    QLinearGradient,
    QPainter,
    QPainterPath,
    QPen,
    QRadialGradient,
)

ROOT = Path(__file__).resolve().parents[1]
SIZE, DETAIL = 128, 8
NAVY, DEEP = QColor("#1f3a5f"), QColor("#0e1c30")
ORANGE, TEAL, WHITE = QColor("#f5a623"), QColor("#2ec4b6"), QColor("#f4f7fb")
VISIBLE = {(0, 1), (1, 3), (2, 0), (2, 2), (3, 2), (1, 1)}  # patches (row, column) of 4 x 4 that are not masked


def draw(path: Path, motif: Callable[[QPainter], None]) -> None:
    """Draw one icon, finer than needed, and save it scaled down."""
    image = QImage(SIZE * DETAIL, SIZE * DETAIL, QImage.Format.Format_ARGB32_Premultiplied)
    image.fill(Qt.GlobalColor.transparent)
    painter = QPainter(image)
    painter.setRenderHint(QPainter.RenderHint.Antialiasing)
    painter.scale(DETAIL, DETAIL)
    background(painter)
    motif(painter)
    painter.end()
    path.parent.mkdir(parents=True, exist_ok=True)
    small = image.scaled(SIZE, SIZE, Qt.AspectRatioMode.KeepAspectRatio, Qt.TransformationMode.SmoothTransformation)
    small.save(str(path))


def background(painter: QPainter) -> None:
    """A dark rounded tile, as dark as a reading room."""
    gradient = QLinearGradient(0, 4, 0, 124)
    gradient.setColorAt(0, NAVY)
    gradient.setColorAt(1, DEEP)
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(gradient)
    painter.drawRoundedRect(QRectF(4, 4, 120, 120), 24, 24)


def patches(painter: QPainter) -> None:
    """A round body in 4 x 4 patches: bright where visible, a hint where masked."""
    body = QPainterPath()
    body.addEllipse(QPointF(64, 64), 46, 46)
    light = QRadialGradient(54, 50, 70)
    light.setColorAt(0, WHITE)
    light.setColorAt(1, QColor("#8fa3bd"))
    for row in range(4):
        for column in range(4):
            cell = QPainterPath()
            cell.addRoundedRect(QRectF(17 + column * 24, 17 + row * 24, 22, 22), 4, 4)
            seen = (row, column) in VISIBLE
            painter.fillPath(cell & body, QBrush(light) if seen else QBrush(QColor(255, 255, 255, 38)))


def organ(grow: float = 0) -> QPainterPath:
    """A kidney-like outline across visible and masked patches."""
    path = QPainterPath(QPointF(52, 34 - grow))
    path.cubicTo(88 + grow, 26 - grow, 104 + grow, 62, 84 + grow, 86 + grow)
    path.cubicTo(72, 100 + grow, 50 - grow, 92 + grow, 52 - grow, 78)
    path.cubicTo(54, 66, 66, 66, 62, 54)
    path.cubicTo(58, 46, 40 - grow, 42, 52, 34 - grow)
    return path


def extension(painter: QPainter) -> None:
    """Masked patches, and the outline of what is found."""
    patches(painter)
    painter.setBrush(QColor(245, 166, 35, 95))
    painter.setPen(QPen(ORANGE, 5, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap, Qt.PenJoinStyle.RoundJoin))
    painter.drawPath(organ())


def segment(painter: QPainter) -> None:
    """What is found, filled."""
    body = QRadialGradient(54, 50, 70)
    body.setColorAt(0, WHITE)
    body.setColorAt(1, QColor("#8fa3bd"))
    painter.setPen(Qt.PenStyle.NoPen)
    painter.setBrush(body)
    painter.drawEllipse(QPointF(64, 64), 46, 46)
    painter.setBrush(ORANGE)
    painter.setPen(QPen(QColor("#c97f0a"), 4))
    painter.drawPath(organ())


def train(painter: QPainter) -> None:
    """Patches, and a score that rises."""
    patches(painter)
    curve = QPainterPath(QPointF(24, 98))
    curve.cubicTo(40, 60, 56, 50, 104, 34)
    painter.setBrush(Qt.BrushStyle.NoBrush)
    painter.setPen(QPen(DEEP, 13, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawPath(curve)
    painter.setPen(QPen(TEAL, 7, Qt.PenStyle.SolidLine, Qt.PenCapStyle.RoundCap))
    painter.drawPath(curve)
    painter.setPen(QPen(DEEP, 3))
    painter.setBrush(TEAL)
    for point in (QPointF(24, 98), QPointF(56, 55), QPointF(104, 34)):
        painter.drawEllipse(point, 8, 8)


def effect(painter: QPainter) -> None:
    """What is found, and the pencil that corrects it."""
    segment(painter)
    painter.translate(88, 88)
    painter.rotate(45)
    painter.setPen(QPen(DEEP, 3))
    painter.setBrush(TEAL)
    painter.drawRoundedRect(QRectF(-30, -9, 44, 18), 4, 4)
    painter.setBrush(WHITE)
    painter.drawPolygon([QPointF(-30, -9), QPointF(-46, 0), QPointF(-30, 9)])


def main() -> None:
    """Draw all icons."""
    application = QGuiApplication([])
    draw(ROOT / "Resources" / "MedMAE.png", extension)
    draw(ROOT / "MedMAESegment" / "Resources" / "Icons" / "MedMAESegment.png", segment)
    draw(ROOT / "MedMAETrain" / "Resources" / "Icons" / "MedMAETrain.png", train)
    draw(ROOT / "SegmentEditorMedMAE" / "Resources" / "Icons" / "SegmentEditorMedMAE.png", effect)
    application.quit()


if __name__ == "__main__":
    main()
