"""Landscapes of several climates: weather, calendars and sensors that vary by place, year and field."""
