"""Talking with a model: chat templates, a conversation that keeps what was computed, and a terminal for it."""

from tinyllm.chat.conversation import Conversation, Message
from tinyllm.chat.template import ChatTemplate

__all__ = ["ChatTemplate", "Conversation", "Message"]
