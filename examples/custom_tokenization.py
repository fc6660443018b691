"""A tokenizer of one's own: BERT's, for tweets. People and links become a token each, hashtags are split into words.

    python examples/custom_tokenization.py path/to/bert tweets

writes `tweets`, a folder with this file beside the vocabulary, which anyone opens, or pushes to the Hub and opens there:

    unibody.AutoTokenizer.from_pretrained("tweets", trust_remote_code=True)
"""

from __future__ import annotations

import re
import sys
from typing import Any

from unibody import BertTokenizer

PATTERNS = {"<user>": re.compile(r"(?<!\w)@\w+"), "<link>": re.compile(r"https?://\S+")}
HASHTAG = re.compile(r"#(\w+)")
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")


class TweetTokenizer(BertTokenizer):
    """BertTokenizer that reads `@someone` as `<user>`, a link as `<link>` and `#OpenSource` as `open source`."""

    def __init__(self, vocab_file: str, split_hashtags: bool = True, **settings: Any) -> None:
        self.split_hashtags = split_hashtags
        super().__init__(vocab_file, split_hashtags=split_hashtags, **settings)
        self.add_tokens(list(PATTERNS), special_tokens=True)

    def prepare_for_tokenization(
        self, text: str, is_split_into_words: bool = False, **options: Any
    ) -> tuple[str, Any]:
        for token, pattern in PATTERNS.items():
            text = pattern.sub(token, text)
        if self.split_hashtags:
            text = HASHTAG.sub(lambda tag: " ".join(WORDS.findall(tag[1])) or tag[0], text)
        return super().prepare_for_tokenization(text, is_split_into_words, **options)


if __name__ == "__main__":
    source, target = sys.argv[1:]
    TweetTokenizer.register_for_auto_class()
    tokenizer = TweetTokenizer.from_pretrained(source)
    tokenizer.save_pretrained(target)
    print(tokenizer.tokenize("@ada wrote https://example.org about #OpenSource"))
