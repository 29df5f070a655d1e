import { describe, expect, it } from 'vitest';
import { maskText } from '#governance/guardrails/pii/finding.ts';
import { findPii } from '#governance/guardrails/pii/pii.ts';

const mask = (text: string, before = ''): string => maskText(text, findPii(text, before));

describe('personal data', () => {
  it.each([
    ['Visa', 'pay 4111111111111111 now', 'pay <CREDIT_CARD> now'],
    ['Visa in groups', 'pay 4111 1111 1111 1111 now', 'pay <CREDIT_CARD> now'],
    ['a card code after it stays', '4111-1111-1111-1111 123', '<CREDIT_CARD> 123'],
    ['Mastercard', '5555.5555.5555.4444', '<CREDIT_CARD>'],
    ['Mastercard of the second range', '2223003122003222', '<CREDIT_CARD>'],
    ['American Express 4-6-5', '3782 822463 10005', '<CREDIT_CARD>'],
    ['Diners Club', '30569309025904', '<CREDIT_CARD>'],
    ['Discover', '6011111111111117', '<CREDIT_CARD>'],
    ['JCB', '3530111333300000', '<CREDIT_CARD>'],
    ['13 digits after a word for cards', 'visa 4222222222222', 'visa <CREDIT_CARD>'],
    ['in columns of a file', '7,4111111111111111,2027', '7,<CREDIT_CARD>,2027'],
    ['IBAN', 'to DE89370400440532013000.', 'to <IBAN_CODE>.'],
    ['IBAN in groups', 'to GB29 NWBK 6016 1331 9268 19 today', 'to <IBAN_CODE> today'],
    ['IBAN in small letters', 'fr1420041010050500013m02606', '<IBAN_CODE>'],
    ['social security number', 'it is 123-45-6789', 'it is <US_SSN>'],
    ['social security number in one run, named', 'SSN: 123456789', 'SSN: <US_SSN>'],
    ['taxpayer number', 'ITIN 912-78-1234', 'ITIN <US_ITIN>'],
    ['routing number, named', 'routing number 021000021', 'routing number <ABA_ROUTING_NUMBER>'],
    ['international phone', 'ring +49 (0)30 1234567!', 'ring <PHONE_NUMBER>!'],
    ['international phone in one run', 'at +442079460958', 'at <PHONE_NUMBER>'],
    ['phone with 00', '0049 170 1234567', '<PHONE_NUMBER>'],
    [
      'US phone',
      '212-555-0123, (212) 555-0123, 1-212-555-0123',
      '<PHONE_NUMBER>, <PHONE_NUMBER>, <PHONE_NUMBER>',
    ],
    ['local phone, named', 'Tel. 030/1234567', 'Tel. <PHONE_NUMBER>'],
    ['e-mail', 'Ask bob.o\u2019neil+x@mail.example.co.uk.', 'Ask bob.o\u2019<EMAIL_ADDRESS>.'],
    ['e-mail of other letters', 'müller@bücher.de', '<EMAIL_ADDRESS>'],
    ['IPv4', 'from 192.168.1.20:8080', 'from <IP_ADDRESS>:8080'],
    ['IPv6', 'from 2001:db8::8a2e:370:7334.', 'from <IP_ADDRESS>.'],
    ['IPv6 after its name', 'addr:2001:db8::1', 'addr:<IP_ADDRESS>'],
    ['Bitcoin, base58check', '1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa', '<CRYPTO>'],
    ['Bitcoin, bech32', 'bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4', '<CRYPTO>'],
    ['Bitcoin, bech32m', 'bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0', '<CRYPTO>'],
    ['Ethereum', '0x52908400098527886E0F7030069857D2E4169EE7', '<CRYPTO>'],
    ['passport, named', 'passport no. X1234567', 'passport no. <US_PASSPORT>'],
    ['driving licence, named', 'driving licence MORGA657054SM9IJ', 'driving licence <US_DRIVER_LICENSE>'],
    ['German tax id', '86095742719 and 86 095 742 719', '<DE_TAX_ID> and <DE_TAX_ID>'],
    ['NHS number', '943 476 5919', '<UK_NHS>'],
    ['NHS number in one run, named', 'NHS 9434765919', 'NHS <UK_NHS>'],
    ['DNI', '12345678Z', '<ES_NIF>'],
    ['NIE', 'X1234567L and X-1234567-L', '<ES_NIE> and <ES_NIE>'],
  ])('is found: %s', (_name, text, masked) => {
    expect(mask(text)).toBe(masked);
  });

  it.each([
    ['a card with a wrong check digit', '4111 1111 1111 1112'],
    ['a number of no brand', '1234567812345670'],
    ['an IBAN with a wrong check', 'DE89370400440532013001'],
    ['an IBAN of a wrong length', 'DE8937040044053201300'],
    ['a social security number of an area that is not given', '000-45-6789, 666-45-6789, 900-12-3456'],
    ['a social security number of group or serial zero', '123-00-6789, 123-45-0000'],
    ['nine digits without a word', '123456789'],
    ['a routing number with a wrong check', 'routing number 021000022'],
    ['a routing number without a word', '021000021'],
    ['a phone of no country', '+999 12345678'],
    ['ten digits without a word', '2125550123'],
    ['an address without a domain', 'x@y, @example.com, me@localhost'],
    ['an IPv4 over 255, and five numbers', '1.2.3.256 1.2.3.4.5'],
    ['a Bitcoin address with a wrong check', '1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb'],
    ['a segwit address with a wrong check', 'bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t5'],
    ['a passport without a word', 'part X1234567'],
    ['a German tax id with a wrong check', '86095742718'],
    ['an NHS number with a wrong check', 'NHS 9434765918'],
    ['a DNI with a wrong letter', '12345678A'],
    ['an NIE with a wrong letter', 'X1234567A'],
  ])('is not found: %s', (_name, text) => {
    expect(mask(text)).toBe(text);
  });

  it.each([
    'It costs $1,234,567.89 or 1.234.567,89 EUR, 99.95 a month.',
    'On 2024-01-15 at 10:30:45.123Z, or 15.01.2024, 01/15/2024, 20240115T103045.',
    'Call me on 2024-01-15 about it.',
    'Version 1.2.3.4, v10.20.30.40, node 20.20.1, build 7.0.2007.1.',
    'id 550e8400-e29b-41d4-a716-446655440000',
    'sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    'order 112-1234567-1234567, invoice 2024-000123, ticket 10000234, ISBN 978-3-16-148410-0',
    'probabilities 0.4532015112830366, 0,4532015112830366 and 12.4111111111111111',
    'epoch 1700000000, 1700000000000, 1700000000000000',
    'std::vector<int> a::b, x::1, [::2], 12:30:45, dead::beef, ratio 16:9',
    'rows 100 200 3000 and 1 2 3 4 5 6 7 8 9 10 11 12',
    'matrix 212 555 0123 4567 8901',
    '5 @ 3 EUR, @handle, a@b',
    'x^2 + 10\u00b2 = 4111\u00b9\u00b2',
  ])('is not seen in what only looks like it: %s', (text) => {
    expect(mask(text)).toBe(text);
  });

  it('is read in digits and widths of any script, and past characters that cannot be seen', () => {
    expect(mask('\uff14\uff11\uff11\uff11 1111\u00a01111\u20111111!')).toBe('<CREDIT_CARD>!');
    expect(mask('٤١١١١١١١١١١١١١١١.')).toBe('<CREDIT_CARD>.');
    expect(mask('4\u200b111\u2060111111111111 ok')).toBe('<CREDIT_CARD> ok');
    expect(mask('bob\uff20example.com')).toBe('<EMAIL_ADDRESS>');
    expect(mask('𝟒𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏𝟏')).toBe('<CREDIT_CARD>');
  });

  it('stands alone beside letters of scripts that are written without spaces', () => {
    expect(mask('卡号4111111111111111是')).toBe('卡号<CREDIT_CARD>是');
  });

  it('is found by a word before the text, such as the name of its column, and nothing is found in that', () => {
    expect(mask('021000021', 'routing_number: ')).toBe('<ABA_ROUTING_NUMBER>');
    expect(mask('021000021', 'order: ')).toBe('021000021');
    expect(findPii('hello', 'bob@example.com: ')).toEqual([]);
    expect(findPii('bob@example.com', '\u200b\u00fc: ')).toEqual([
      { entity: 'EMAIL_ADDRESS', start: 0, end: 15, certainty: 3 },
    ]);
  });

  it('that overlaps becomes one finding: named after the longest, covering all', () => {
    expect(mask('call 4111 1111 1111 1111')).toBe('call <CREDIT_CARD>');
    expect(mask('212 555 0199@example.com')).toBe('<EMAIL_ADDRESS>');
  });
});

describe('the work of looking for personal data', () => {
  const hostile: readonly (readonly [string, string])[] = [
    ['digits', '4'],
    ['digits with spaces', '4 '],
    ['groups of a card', '4111 '],
    ['groups joined in all ways', '41-11.11 (1) '],
    ['beginnings of an IBAN', 'DE89 '],
    ['letters of one word', 'a'],
    ['at signs', '@'],
    ['beginnings of an e-mail', 'a@'],
    ['dots of a domain', 'a@a.a.'],
    ['colons', 'a:'],
    ['dotted numbers', '1.'],
    ['base58', '1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb '],
    ['brackets of phones', '+(1'],
    ['words for phones', 'tel 1 '],
    ['words for passports', 'passport A1234x '],
    ['dashes in words', 'a1-'],
    ['characters that cannot be seen', '4\u200b'],
    ['white space', ' '],
  ];

  it.each(hostile)('grows no faster than a text of %s', (_name, piece) => {
    const text = (length: number) => piece.repeat(Math.ceil(length / piece.length));
    const cpu = (length: number): number => {
      const given = text(length);
      const before = process.cpuUsage();
      findPii(given);
      const { user, system } = process.cpuUsage(before);
      return user + system;
    };
    cpu(10_000);
    const small = Math.max(Math.min(cpu(50_000), cpu(50_000)), 2_000);
    // Twenty times the text: linear work is 20 times as much, quadratic 400.
    expect(cpu(1_000_000) / small).toBeLessThan(100);
  });
});
